"""`python -m benchmarks quality`: is it the same person, does the picture obey the prompt, is it good; beside the peers.

People, prompts and judges are those of the rendered world. `--sweeps` changes one parameter of the request at a time. `--pictures
FOLDER --recogniser MODEL.onnx` scores pictures that any variant made of real people. Writes sheets, curves and an HTML page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.outputs import filling
from faceclip_serving.contract.numbers import finite
from faceclip_serving.contract.variants.table import VARIANTS

from ..measure.report import emit
from .sweeps import NAMES

KINDS = ("all", "prompts", "people", "detail")


def run(args: argparse.Namespace) -> int:
    if args.pictures is not None:
        from .photographs import score_folder

        emit("quality-photographs", score_folder(args.pictures, args.recogniser))
        return 0
    import torch

    from .evaluation import evaluate, settings_of
    from .report import RECORD

    torch.set_num_threads(args.threads or torch.get_num_threads())
    if args.kind == "prompts":
        from .wording import evaluate_prompts

        with filling(args.output, RECORD) as folder:
            document = evaluate_prompts(VARIANTS[args.variant], args, folder, settings_of(VARIANTS[args.variant], args))
        emit(f"quality-{args.variant}-prompts", document)
        return 0
    if args.kind == "people":
        from .groups import evaluate_groups

        with filling(args.output, RECORD) as folder:
            document = evaluate_groups(VARIANTS[args.variant], args.people, folder, args.weights)
        emit(f"quality-{args.variant}-people", document)
        return 0
    if args.kind == "detail":
        from .detail import evaluate_detail

        with filling(args.output, RECORD) as folder:
            document = evaluate_detail(VARIANTS[args.variant], args, folder, settings_of(VARIANTS[args.variant], args))
        emit(f"quality-{args.variant}-detail", document)
        return 0
    with filling(args.output, RECORD) as folder:
        document = evaluate(VARIANTS[args.variant], args, folder)
    print(f"report: {args.output / 'index.html'}", file=sys.stderr)
    emit(result_name(args.variant, args.sweeps or ()), document)
    return 0


def result_name(variant: str, sweeps: Sequence[str]) -> str:
    """Of the file that `emit` keeps: some sweeps do not take the place of all, e.g. `quality-nano-precision`."""
    some = () if set(sweeps) == set(NAMES) else sorted(sweeps)
    return "-".join(["quality", variant, *some])


class _Sweeps(argparse.Action):
    """`all`, or names of sweeps."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None) -> None:
        names = list(NAMES) if values == ["all"] else values
        unknown = [name for name in names if name not in NAMES]
        if unknown or not names:
            parser.error(f"--sweeps: expected all, or some of {', '.join(NAMES)}; got {' '.join(unknown) or 'none'}")
        setattr(namespace, self.dest, names)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    own = [name for name, variant in VARIANTS.items() if variant.weights == "committed"]
    parser.add_argument("--variant", choices=own, default=own[0], help="one that was trained on the rendered world")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default=KINDS[0],
        help="all columns (default); how weighted and long prompts are obeyed; who is who of several people in one picture; or small"
        " faces with and without face_detail",
    )
    parser.add_argument("--weights", type=Path, help="folder of its weights (default: weights/<variant>)")
    parser.add_argument(
        "--people", type=int, default=20, help="test identities; of --kind people: pictures (default: %(default)s)"
    )
    parser.add_argument("--prompts", type=int, default=4, help="scenes of each (default: %(default)s)")
    parser.add_argument("--guidance-scale", type=finite(zero=True), help="default: the variant's")
    parser.add_argument("--steps", type=int, help="default: the variant's")
    parser.add_argument("--sweeps", nargs="+", action=_Sweeps, metavar="NAME", help=f"all, or some of {', '.join(NAMES)}")
    parser.add_argument("--sweep-cases", type=int, default=24, help="cases of each point of a sweep (default: %(default)s)")
    parser.add_argument("--no-server", action="store_true", help="leave out the comparison of served pictures")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument(
        "--output", type=Path, default=Path("build/quality"), help="where the report goes (default: %(default)s)"
    )
    parser.add_argument("--pictures", type=Path, help="score pictures of real people: one folder each, with reference.png")
    parser.add_argument("--recogniser", type=Path, help="ONNX face recogniser for --pictures: aligned 112x112 RGB -> a vector")
