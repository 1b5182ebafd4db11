"""Idle and peak memory of every stage, per profile: each component of a repository loaded and run in a process of its own.

Resident memory on the CPU; on a GPU also what the process holds there, as NVML tells (`pip install nvidia-ml-py`). Beside it what
counting the graph predicts: weights and the most activations alive at once.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from export.build import build_repository, onnx_folder
from faceclip_serving.profiles import PROFILE_NAMES, profile_of
from faceclip_serving.signatures import COMPONENTS
from faceclip_serving.variant import Variant
from faceclip_serving.variants import VARIANTS

from . import gpu
from .component_process import ComponentProcessError, Job
from .floor import component_sizes
from .report import emit
from .sweep import Point, SweepError, points, usual_point
from .table import table
from .weighing import NoRoomError, weigh


def measure(variant: Variant, chosen: Sequence[Point], repeats: int, checkpoint: Path | None = None) -> dict[str, Any]:
    """Every component at every point. Components on Triton's own backends are weighed with the server, by `latency`."""
    measured = []
    for name, group in itertools.groupby(chosen, key=lambda point: point.profile):
        profile = profile_of(variant, name)
        build_repository(variant, profile, checkpoint)
        for point in group:
            stages = {}
            for component in COMPONENTS:
                placement = profile.placements[component]
                if placement.runtime.providers:
                    graph = onnx_folder(variant) / placement.precision / component / "model.onnx"
                    sizes = component_sizes(variant, component, point)
                    job = Job(variant.name, component, str(graph.resolve()), sizes, placement.runtime.name, repeats)
                    stages[component] = weigh(job)
            measured.append({**asdict(point), "label": point.label, "stages": stages})
    threads = psutil.cpu_count(logical=False)
    return {"variant": variant.name, "threads": threads, "gpus": gpu.devices(), "points": measured}


def shown(measured: Sequence[dict[str, Any]]) -> str:
    """A line per stage of every point, MB."""
    rows: list[list[str | float | None]] = []
    for point in measured:
        for name, each in point["stages"].items():
            counted, held = each["predicted"], each["bytes"]
            sizes = [counted["weight_bytes"], counted["activation_peak_bytes"], held["idle"] - held["before"]]
            sizes += [held["run_peak"] - held["before"], held.get("gpu_idle"), held.get("gpu_peak")]
            rows.append([f"{point['label']}: {name}", *(None if size is None else size / 1e6 for size in sizes)])
    return table(["what (MB)", "weights", "activations", "idle", "peak", "GPU idle", "GPU peak"], rows)


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("vram", help="idle and peak memory of every stage", description=__doc__)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="tiny-sdxl")
    parser.add_argument("--profile", choices=PROFILE_NAMES, default="cpu")
    parser.add_argument("--sweep", nargs="+", default=[], metavar="AXIS=VALUES", help="as of `latency`")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="folder of the official layout (default: seeded weights)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    try:
        chosen = points(variant, usual_point(variant, args.profile), args.sweep)
        document = measure(variant, chosen, args.repeats, args.checkpoint)
    except (SweepError, NoRoomError, ComponentProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(shown(document["points"]), file=sys.stderr)
    emit(f"vram-{variant.name}", document)
    return 0
