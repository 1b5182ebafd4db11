"""Idle and peak memory, per placement: of every stage, loaded and run in a process of its own, and of the whole served system.

On every machine this is the host's memory, resident as Linux counts it; of a GPU also what processes hold there, where NVML tells
(`pip install nvidia-ml-py`). Beside it stands what was predicted: of a stage by counting its graph, of the system by the forecast.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.commandline import add_checkpoint, add_placement, add_variant
from export.paths import onnx_folder
from faceclip_serving.contract.names import COMPONENTS
from faceclip_serving.contract.placements import ONNX_FILE, Placement, placement_of
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..measure import gpu, host_memory
from ..measure.example import PHOTO, PROMPT
from ..measure.floor import component_sizes
from ..measure.report import THREADS, emit, say
from ..measure.running import serving
from ..measure.sweep import Point, largest_point, points, usual_point
from ..measure.table import table
from .component_process import ComponentRun

if TYPE_CHECKING:
    from faceclip import FaceCLIPPipeline
    from server.process import TritonServer

REQUESTS = 6
"""At each point: the first allocates, and arenas grow a little with those after it."""


def measure_memory(variant: Variant, chosen: Sequence[Point], repeats: int, checkpoint: Path | None = None) -> dict[str, Any]:
    """Every component at every point, and a server per placement. Components on Triton's own backends are weighed with it only."""
    measured = []
    for name, group in itertools.groupby(chosen, key=lambda point: point.placement):
        placement = placement_of(variant, name)
        with serving(variant, placement, checkpoint) as (server, pipe):
            idle = host_memory.by_process(server)
            idle_gpu = gpu.process_bytes(host_memory.pids(server))
            served = [(point, _served(variant, placement, server, pipe, point)) for point in group]
        for point, found in served:
            found |= {"idle": idle, "gpu_idle": idle_gpu, **totals(idle, found["after"])}
            stages = _stages(variant, placement, point, repeats)
            measured.append({**asdict(point), "label": point.label, "stages": stages, "system": found})
    return {"variant": variant.name, "threads": THREADS, "gpus": gpu.devices(), "points": measured}


def _served(
    variant: Variant, placement: Placement, server: TritonServer, pipe: FaceCLIPPipeline, point: Point
) -> dict[str, Any]:
    """Memory of each process of a server after requests at `point`: `now`, and its `peak` within them; and what was forecast."""
    from export.forecast.forecast import document, predict  # torch

    host_memory.start_peak(server)
    with gpu.Peak(host_memory.pids(server)) as on_gpu:
        for seed in range(REQUESTS):
            pipe(PROMPT, face_image=PHOTO.read_bytes(), seed=seed, **point.settings, output_type="bytes")
    predicted = predict(variant, placement, onnx_folder(variant), (point.height, point.width))
    after = host_memory.by_process(server)
    say(f"{point.label}: served, {sum(each['peak'] for each in after.values()) / 1e6:.0f} MB at most")
    return {"after": after, "gpu_peak": on_gpu.bytes, "forecast": document(predicted)}


def totals(idle: Mapping[str, Mapping[str, int]], after: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Bytes of all processes together. Peaks are added as if all came at once; pages that processes share count in each."""
    return {
        "idle_bytes": sum(each["now"] for each in idle.values()),
        "peak_bytes": sum(each["peak"] for each in after.values()),
    }


def _stages(variant: Variant, placement: Placement, point: Point, repeats: int) -> dict[str, Any]:
    from .weighing import weigh  # torch

    stages = {}
    for component in COMPONENTS:
        execution = placement.components[component]
        if execution.runtime.providers:
            graph = onnx_folder(variant) / execution.precision / component / ONNX_FILE
            sizes = component_sizes(variant, component, point)
            job = ComponentRun(variant.name, component, str(graph.resolve()), sizes, execution.runtime.name, repeats)
            stages[component] = weigh(job)
    return stages


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


def system_shown(measured: Sequence[dict[str, Any]]) -> str:
    """A line per process of the served system at every point, MB, and the sum beside what was forecast."""
    rows: list[list[str | float | None]] = []
    for point in measured:
        system = point["system"]
        for name, after in system["after"].items():
            rows.append([f"{point['label']}: {name}", system["idle"][name]["now"] / 1e6, after["peak"] / 1e6, None])
        predicted = system["forecast"]["host"]["predicted_peak_gb"] * 1e3
        rows.append([f"{point['label']}: all", system["idle_bytes"] / 1e6, system["peak_bytes"] / 1e6, predicted])
        on_gpu = [None if size is None else size / 1e6 for size in (system["gpu_idle"], system["gpu_peak"])]
        rows.append([f"{point['label']}: GPU", *on_gpu, system["forecast"]["gpu"]["predicted_peak_gb"] * 1e3])
    return table(["process (MB)", "idle", "peak", "forecast"], rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    add_placement(parser)
    parser.add_argument("--sweep", nargs="+", default=[], metavar="AXIS=VALUES", help="as of `latency`")
    parser.add_argument("--largest", action="store_true", help="the largest picture as well, as many as a request may ask for")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: %(default)s)")
    add_checkpoint(parser, "folder of the official layout (default: seeded weights)")


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    chosen = points(variant, usual_point(variant, args.placement), args.sweep)
    if args.largest:
        chosen += [largest_point(variant, chosen[-1])]
    document = measure_memory(variant, chosen, args.repeats, args.checkpoint)
    print(shown(document["points"]), file=sys.stderr)
    print(system_shown(document["points"]), file=sys.stderr)
    emit(f"vram-{variant.name}", document)
    return 0
