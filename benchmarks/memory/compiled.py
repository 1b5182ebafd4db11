"""What TensorRT for RTX says of a variant's graphs: does it take them for these cards, how long, how much memory.

Every component is compiled ahead of time, without a GPU, into one plan for all cards: RTX 20 is SM 75, 30 is 86, 40 is 89, 50 is 120.
The denoiser is compiled for each number of rows, the decoder for each tile. Takes graphs that `python -m export onnx` wrote.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from export.commandline import add_components, add_variant
from export.engine.build import Target, build_apart, target_of, told_products
from export.engine.errors import EngineError
from export.engine.options import Options
from export.engine.record import LOG
from export.engine.shapes import ShapeRange, Sizes, engine_bounds, parse_size, shape_ranges
from export.paths import onnx_folder
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import ONNX_FILE, PLAN_FILE, TRT_RTX
from faceclip_serving.contract.signatures import COMPONENTS, DENOISER, VAE_DECODER, components
from faceclip_serving.contract.variant import Variant
from faceclip_serving.contract.variants import VARIANTS

from ..measure.report import emit, say
from ..measure.table import table


class CompiledError(UserError):
    """A graph is missing."""


class Case(NamedTuple):
    """One build: what of the component, and the job."""

    component: str
    limits: Mapping[str, Sequence[int]]
    """Axis -> smallest, usual, largest."""
    choice: Mapping[str, int]
    """`rows` of the denoiser or `tile` of the decoder, in latent cells; 0: whole pictures, as many as a request may have."""
    graph: Path
    shapes: Mapping[str, ShapeRange]


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """Raises `CompiledError` where a graph is missing, `EngineError` for a size that the variant does not have."""
    variant = VARIANTS[args.variant]
    for component in args.component or COMPONENTS:
        graph = (args.components or onnx_folder(variant)) / args.precision / component / ONNX_FILE
        if not graph.exists():
            raise CompiledError(
                f"expected {graph}; make it with `python -m export onnx --variant {variant.name} --component {component}"
                f" --precision {args.precision}`"
            )
        choices: list[dict[str, int]] = [{}]
        if component == DENOISER:
            choices = [{"rows": rows} for rows in args.rows]
        if component == VAE_DECODER:
            choices = [{"tile": tile} for tile in args.tiles]
        for choice in choices:
            yield _case(args, variant, component, graph, choice)


def _case(args: argparse.Namespace, variant: Variant, component: str, graph: Path, choice: dict[str, int]) -> Case:
    limits = engine_bounds(variant, component, choice.get("rows", 1), Sizes(largest=args.largest), choice.get("tile", 0))
    shapes = shape_ranges(components(variant)[component], limits)
    return Case(component, limits, choice, graph, shapes)


def built(case: Case, variant: Variant, target: Target, log: Path | None = None) -> dict[str, Any]:
    """One build, whose plan is weighed and forgotten: what it took and needs, or `refused`: the compiler's reason."""
    from export.engine.tensorrt import Work  # once the package is chosen

    signature = components(variant)[case.component]
    with tempfile.TemporaryDirectory(prefix="compiled-") as scratch:
        plan = Path(scratch) / PLAN_FILE
        work = Work(
            case.graph, plan, log or Path(scratch) / LOG, signature, case.shapes, Options(), target.runtime, target.sm, plan
        )
        try:
            measured = build_apart(work)
        except EngineError as error:
            return {"refused": str(error)}
        for line in told_products(measured):
            say(line)
        return {"plan_bytes": plan.stat().st_size, **asdict(measured)}


def shown(found: Sequence[Mapping[str, Any]]) -> str:
    """A line per build, and below them why what was refused."""
    keys = ("weight_bytes", "activation_bytes", "scratch_bytes", "plan_bytes", "peak_host_bytes")
    rows = [[_name(each), each.get("seconds"), *(_gb(each.get(key)) for key in keys)] for each in found]
    header = ["component", "s", "weights GB", "activations GB", "of it scratch GB", "plan GB", "host peak GB"]
    refused = [f"{_name(each)}: {reason}" for each in found if (reason := each.get("refused"))]
    return "\n".join([table(header, rows), *refused])


def _name(found: Mapping[str, Any]) -> str:
    return " ".join([found["component"], *(f"{key} {value}" for key, value in found["choice"].items())])


def _gb(size: int | None) -> float | None:
    return None if size is None else size / 1e9


def numbers(text: str) -> list[int]:
    """`1,2,4` -> [1, 2, 4]. Raises `ValueError`, as argparse wants."""
    return [int(part) for part in text.split(",")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser, "sdxl")
    add_components(parser)
    parser.add_argument("--component", choices=COMPONENTS, action="append", help="only this one; may be repeated")
    parser.add_argument("--precision", default="fp16", help="folder of the graphs (default: %(default)s)")
    parser.add_argument(
        "--sm", type=numbers, default=[75, 86, 89, 120], metavar="N,N", help="compute capabilities (default: 75,86,89,120)"
    )
    parser.add_argument(
        "--rows", type=numbers, default=[1, 2, 4, 8], metavar="N,N", help="most rows of a denoiser call (default: 1,2,4,8)"
    )
    parser.add_argument(
        "--tiles",
        type=numbers,
        default=[32, 48, 64, 96, 144],
        metavar="N,N",
        help="largest side that the decoder sees of one picture, latent cells; 0: whole pictures (default: 32,48,64,96,144)",
    )
    parser.add_argument("--largest", type=parse_size, default=None, metavar="HEIGHTxWIDTH", help="largest picture")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="folder for what the compiler says")


def run(args: argparse.Namespace) -> int:
    target = target_of(TRT_RTX, args.sm)
    if args.logs is not None:
        args.logs.mkdir(parents=True, exist_ok=True)
    found = []
    for case in list(cases(args)):  # all of them, before minutes are spent
        result: dict[str, Any] = {"component": case.component, "choice": case.choice, "limits": case.limits}
        log = None if args.logs is None else args.logs / f"{_name(result).replace(' ', '-')}.log"
        result.update(built(case, VARIANTS[args.variant], target, log))
        say(f"{_name(result)}: {result.get('refused') or str(result['seconds']) + ' s'}")
        found.append(result)
    print(shown(found), file=sys.stderr)
    largest = args.largest and list(args.largest)
    emit(
        "-".join(["compiled", *([] if args.precision == "fp16" else [args.precision]), args.variant, *(args.component or ())]),
        {
            "variant": args.variant,
            "precision": args.precision,
            "sm": args.sm,
            "compiler": target.label,
            "largest": largest,
            "builds": found,
        },
    )
    return 0 if all("plan_bytes" in each for each in found) else 1
