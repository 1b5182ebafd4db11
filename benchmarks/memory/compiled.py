"""What TensorRT for RTX says of a variant's graphs: does it take them for these cards, how long, how much memory.

Every component is compiled ahead of time, without a GPU, into one plan for all cards: RTX 20 is SM 75, 30 is 86, 40 is 89, 50 is 120.
The denoiser is compiled for each number of rows, the decoder for each tile. Takes graphs that `python -m export onnx` wrote.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from export.commandline import add_components, add_variant
from export.engine.shapes import Sizes, engine_bounds, parse_size, shape_ranges
from export.paths import onnx_folder
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import ONNX_FILE
from faceclip_serving.contract.signatures import COMPONENTS, DENOISER, VAE_DECODER, components
from faceclip_serving.contract.variant import Variant
from faceclip_serving.contract.variants import VARIANTS

from ..measure.own_process import run_module
from ..measure.report import emit, say
from ..measure.table import table
from . import compiler
from .compiler import Compile


class CompiledError(UserError):
    """Nothing can be compiled: the compiler or a graph is missing."""


class Case(NamedTuple):
    """One build: what of the component, and the job."""

    component: str
    limits: Mapping[str, Sequence[int]]
    """Axis -> smallest, usual, largest."""
    choice: Mapping[str, int]
    """`rows` of the denoiser or `tile` of the decoder, in latent cells; 0: whole pictures, as many as a request may have."""
    job: Compile


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
    name = "-".join([component, *(f"{key}{value}" for key, value in choice.items())])
    log = "" if args.logs is None else str((args.logs / f"{name}.log").resolve())
    return Case(component, limits, choice, Compile(str(graph.resolve()), shapes, args.sm, log))


def shown(found: Sequence[Mapping[str, Any]]) -> str:
    """A line per build, and below them why what was refused."""
    keys = ("weight_bytes", "activation_bytes", "scratch_bytes", "plan_bytes", "host_peak_bytes")
    rows = [[_name(each), each.get("seconds"), *(_gb(each.get(key)) for key in keys)] for each in found]
    header = ["component", "s", "weights GB", "activations GB", "of it scratch GB", "plan GB", "host peak GB"]
    refused = [f"{_name(each)}: {reason}" for each in found if (reason := each.get("refused") or each.get("error"))]
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
    parser.add_argument("--logs", type=Path, metavar="DIR", help="folder for all that the compiler says")


def run(args: argparse.Namespace) -> int:
    reason = compiler.missing()
    if reason:
        raise CompiledError(reason)
    if args.logs is not None:
        args.logs.mkdir(parents=True, exist_ok=True)
    found = []
    for case in list(cases(args)):  # all of them, before minutes are spent
        result = {
            "component": case.component,
            "choice": case.choice,
            "limits": case.limits,
            **run_module(compiler.__name__, case.job),
        }
        say(f"{_name(result)}: {result.get('refused') or result.get('error') or str(result['seconds']) + ' s'}")
        found.append(result)
    print(shown(found), file=sys.stderr)
    largest = args.largest and list(args.largest)
    emit(
        f"compiled-{args.variant}",
        {"variant": args.variant, "precision": args.precision, "sm": args.sm, "largest": largest, "builds": found},
    )
    return 0 if all("plan_bytes" in each for each in found) else 1
