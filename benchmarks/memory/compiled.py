"""Whether TensorRT for RTX takes each component's graph, and what memory it says the plan needs; no GPU is needed.

By default every plan that a placement asks for; `--rows` and `--tiles` try others. A graph that was not exported is traced from seeded
weights and forgotten, `int8` and `fp8` without calibration: what a plan needs depends neither on weights nor on scales. `--record` keeps
the figures with the code, where the forecast reads them. `--blocks` shortens networks that are too large for this machine to compile:
their activations are those of the whole network, which reuses them from block to block; their weights are counted instead.

One process a build, which takes minutes for the full-size networks and about three times the weights in host memory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from export.commandline import add_components, add_variant
from export.engine.build import Target, build_apart, target_of, told_products
from export.engine.errors import EngineError
from export.engine.machine import SERIES
from export.engine.options import NO_OPTIONS
from export.engine.record import LOG, Purpose
from export.engine.shapes import Sizes, engine_bounds, parse_size, shape_ranges
from export.forecast.compiled import Build, keep
from export.paths import onnx_folder
from faceclip_serving.contract.components import components
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.names import COMPONENTS, DENOISER, TEXT_ENCODER, VAE_DECODER, VAE_ENCODER
from faceclip_serving.contract.placements import ONNX_FILE, PLAN_FILE, TRT_RTX, placements
from faceclip_serving.contract.tensors import Bounds
from faceclip_serving.contract.variants.architectures import FluxArchitecture
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..measure.report import emit, say
from ..measure.table import table

ALL = list(SERIES)

SHORTENED = (TEXT_ENCODER, DENOISER)
"""Components that `--blocks` shortens; the others are whole."""

NEEDS = ("activation_bytes", "weight_bytes", "scratch_bytes", "plan_bytes", "peak_host_bytes", "seconds")


class CompiledError(UserError):
    """Nothing can be compiled as asked."""


@dataclass(frozen=True)
class Case:
    """One plan to compile."""

    component: str
    precision: str
    limits: Bounds
    """Axis -> smallest, usual, largest."""

    @property
    def largest(self) -> dict[str, int]:
        return {axis: bound.max for axis, bound in self.limits.items()}

    @property
    def name(self) -> str:
        axes = [f"{axis} {value}" for axis, value in self.largest.items()]
        return " ".join([self.component, self.precision, *axes])


def cases(args: argparse.Namespace) -> list[Case]:
    """What is asked for, each plan once. Raises `CompiledError`, or `EngineError` for a size that the variant does not have."""
    variant = VARIANTS[args.variant]
    found = _tried(args, variant) if args.rows or args.tiles else _placed(args, variant)
    different = list({case.name: case for case in found}.values())
    if not different:
        raise CompiledError(f"nothing to compile: no placement of '{variant.name}' has such plans")
    return different


def _placed(args: argparse.Namespace, variant: Variant) -> Iterator[Case]:
    """What the placements ask for."""
    for placement in placements(variant).values():
        for component in args.component or COMPONENTS:
            execution = placement.components[component]
            if execution.runtime.package and args.precision in (None, execution.precision):
                purpose = Purpose(variant, placement, component)
                yield Case(component, execution.precision, purpose.bounds(Sizes(largest=args.largest)))


def _tried(args: argparse.Namespace, variant: Variant) -> Iterator[Case]:
    """What `--rows` and `--tiles` ask for."""
    for component in args.component or COMPONENTS:
        choices: list[dict[str, int]] = [{}]
        if component == DENOISER:
            choices = [{"denoiser_rows": rows} for rows in args.rows]
        if component in (VAE_ENCODER, VAE_DECODER):
            choices = [{"vae_tile": tile} for tile in args.tiles]
        for choice in choices:
            limits = engine_bounds(variant, component, **{"denoiser_rows": 1, **choice}, sizes=Sizes(largest=args.largest))
            yield Case(component, args.precision or "fp16", limits)


def graph_of(case: Case, variant: Variant, exported: Path | None, scratch: Path) -> Path:
    """The exported graph, or one that is traced from seeded weights into `scratch`.

    Raises `ExportError` or `ComponentError` where nothing can be traced in that precision.
    """
    place = Path(case.precision) / case.component
    if exported is not None and (exported / place / ONNX_FILE).exists():
        return exported / place / ONNX_FILE
    if not (scratch / place / ONNX_FILE).exists():
        from export.onnx.export import write_unproven  # brings torch
        from export.onnx.wanted import Export

        write_unproven(Export(variant, case.component, case.precision, seeded=True), scratch / place)
    return scratch / place / ONNX_FILE


def shortened(variant: Variant, blocks: int) -> Variant:
    """The variant with so many blocks of each kind, as wide as they are. Raises `CompiledError` for a family without equal blocks."""
    architecture = variant.architecture
    if not isinstance(architecture, FluxArchitecture):
        raise CompiledError(f"blocks: expected a variant of FLUX, whose blocks are all alike, got '{variant.name}'")
    transformer = {**architecture.transformer, "num_layers": blocks, "num_single_layers": blocks}
    text = replace(architecture.text, layers=blocks)
    return replace(variant, architecture=replace(architecture, transformer=transformer, text=text))


def built(case: Case, variant: Variant, graph: Path, target: Target, log: Path | None = None) -> dict[str, Any]:
    """One build, whose plan is weighed and forgotten: what it took and needs, or `refused`: the compiler's reason."""
    from export.engine.tensorrt import Work  # once the package is chosen

    signature = components(variant)[case.component]
    shapes = shape_ranges(signature, case.limits)
    with tempfile.TemporaryDirectory(prefix="compiled-", dir=graph.parent) as scratch:
        plan = Path(scratch) / PLAN_FILE
        log = log or Path(scratch) / LOG
        work = Work(graph, plan, log, signature, shapes, NO_OPTIONS, target.runtime, target.sm, plan)
        try:
            measured = build_apart(work)
        except EngineError as error:
            return {"refused": str(error)}
        for line in told_products(measured):
            say(line)
        return {"plan_bytes": plan.stat().st_size, **asdict(measured)}


def shown(found: Sequence[tuple[Case, Mapping[str, Any]]]) -> str:
    """A line per build, and below them why what was refused."""
    keys = ("weight_bytes", "activation_bytes", "scratch_bytes", "plan_bytes", "peak_host_bytes")
    rows = [[case.name, each.get("seconds"), *(_gb(each.get(key)) for key in keys)] for case, each in found]
    header = ["component", "s", "weights GB", "activations GB", "of it scratch GB", "plan GB", "host peak GB"]
    refused = [f"{case.name}: {reason}" for case, each in found if (reason := each.get("refused"))]
    return "\n".join([table(header, rows), *refused])


def _gb(size: int | None) -> float | None:
    return None if size is None else size / 1e9


def numbers(text: str) -> list[int]:
    """`1,2,4` -> [1, 2, 4]. Raises `ValueError`, as argparse wants."""
    return [int(part) for part in text.split(",")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser, "sdxl")
    add_components(parser)
    parser.add_argument("--component", choices=COMPONENTS, action="append", help="only this one; may be repeated")
    parser.add_argument(
        "--precision", help="folder of the graphs (default: as the placements have it; fp16 with --rows, --tiles)"
    )
    parser.add_argument("--sm", type=numbers, default=ALL, metavar="N,N", help="compute capabilities (default: 75,86,89,120)")
    parser.add_argument(
        "--rows",
        type=numbers,
        default=[],
        metavar="N,N",
        help="most rows of a denoiser call (default: as the placements have it)",
    )
    parser.add_argument(
        "--tiles",
        type=numbers,
        default=[],
        metavar="N,N",
        help="largest side that the VAE sees of one picture, latent cells; 0: whole pictures (default: as the placements have it)",
    )
    parser.add_argument("--largest", type=parse_size, default=None, metavar="HEIGHTxWIDTH", help="largest picture")
    parser.add_argument(
        "--blocks", type=int, metavar="N", help="compile networks with N blocks of each kind, of seeded weights"
    )
    parser.add_argument("--record", action="store_true", help="keep the figures with the code, for the forecast")
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="for graphs that are traced and forgotten (default: temporary)"
    )
    parser.add_argument("--logs", type=Path, metavar="DIR", help="folder for what the compiler says")


def run(args: argparse.Namespace) -> int:
    variant, target = VARIANTS[args.variant], target_of(TRT_RTX, args.sm)
    wanted = cases(args)
    compiled, exported = variant, args.components or onnx_folder(variant)
    if args.blocks is not None:
        compiled, exported = shortened(variant, args.blocks), None
    if args.logs is not None:
        args.logs.mkdir(parents=True, exist_ok=True)
    found = []
    with tempfile.TemporaryDirectory(prefix="compiled-", dir=args.scratch) as folder:
        for case in wanted:
            log = None if args.logs is None else args.logs / f"{case.name.replace(' ', '-')}.log"
            result = built(case, compiled, graph_of(case, compiled, exported, Path(folder)), target, log)
            say(f"{case.name}: {result.get('refused') or str(result['seconds']) + ' s'}")
            found.append((case, result))
            if args.record and "plan_bytes" in result:
                blocks = args.blocks if case.component in SHORTENED else None
                needs = {name: result[name] for name in NEEDS}
                kept = Build(case.component, case.precision, case.largest, target.sm, target.label, **needs, blocks=blocks)
                keep(variant.name, [kept])
    print(shown(found), file=sys.stderr)
    emit(
        "-".join(
            [
                "compiled",
                *([args.precision] if args.precision not in (None, "fp16") else []),
                args.variant,
                *(args.component or ()),
            ]
        ),
        {
            "variant": args.variant,
            "sm": args.sm,
            "compiler": target.label,
            "blocks": args.blocks,
            "builds": [
                {
                    "component": case.component,
                    "precision": case.precision,
                    "largest": case.largest,
                    **each,
                }
                for case, each in found
            ],
        },
    )
    return 0 if all("plan_bytes" in each for _, each in found) else 1
