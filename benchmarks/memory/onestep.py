"""One run of each exported component at one size, each in a fresh process: does it run at full size, how long, in how much memory?

Takes graphs that `python -m export onnx` wrote, of any variant and precision; with seeded weights the times and bytes are those
of real ones. On the CPU half precision is computed as FP32, so the memory is about twice that of the files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.commandline import add_variant
from faceclip_serving.contract.names import COMPONENTS
from faceclip_serving.contract.placements import ONNX_FILE, RUNTIMES
from faceclip_serving.contract.variants.table import VARIANTS

from ..measure.floor import component_sizes
from ..measure.report import THREADS, emit
from ..measure.sweep import points, usual_point
from ..measure.table import table
from .component_process import ComponentRun


def jobs(args: argparse.Namespace) -> list[ComponentRun]:
    """A job per component. Raises `SweepError` for a size that the variant does not allow."""
    variant = VARIANTS[args.variant]
    (point,) = points(variant, usual_point(variant), [f"size={args.height}x{args.width}"])
    return [
        ComponentRun(
            variant.name,
            name,
            str((args.components / name / ONNX_FILE).resolve()),
            {**component_sizes(variant, name, point), "rows": args.rows},
            args.runtime,
            args.repeats,
            args.threads or THREADS,
            dict(entry.split("=", 1) for entry in args.session),
        )
        for name in args.component or COMPONENTS
    ]


def document(variant: str, height: int, width: int, found: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The command's JSON."""
    return {
        "variant": variant,
        "height": height,
        "width": width,
        "all_finite": all(output["finite"] for each in found.values() for output in each["outputs"].values()),
        "components": dict(found),
    }


def shown(found: Mapping[str, dict[str, Any]]) -> str:
    """A line per component."""
    rows: list[list[str | float]] = []
    for name, each in found.items():
        measured, counted = each["bytes"], each["predicted"]
        gigabytes = [counted["weight_bytes"], counted["activation_peak_bytes"], measured["idle"], measured["run_peak"]]
        rows.append([name, counted["flops"] / 1e12, each["load_s"], each["runs_s"][-1], *(size / 1e9 for size in gigabytes)])
    return table(["component", "TFLOP", "load s", "run s", "weights GB", "activations GB", "idle GB", "peak GB"], rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--components", type=Path, required=True, metavar="DIR", help="folder of <component>/model.onnx")
    add_variant(parser, "sdxl")
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=1, help="rows of text encoder and denoiser (default: %(default)s)")
    parser.add_argument("--component", choices=COMPONENTS, action="append", help="only this one; may be repeated")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="default: one per physical core")
    parser.add_argument("--runtime", choices=[name for name, found in RUNTIMES.items() if found.providers], default="ort-cpu")
    parser.add_argument("--session", action="append", default=[], metavar="KEY=VALUE", help="ONNX Runtime session entry")


def run(args: argparse.Namespace) -> int:
    from .weighing import weigh  # torch

    found = {job.component: weigh(job) for job in jobs(args)}
    print(shown(found), file=sys.stderr)
    emit(f"onestep-{args.variant}-{args.components.name}", document(args.variant, args.height, args.width, found))
    return 0
