"""How long a picture takes, per stage and end to end, beside the physical floor of this very device.

First the floor: FLOPs and bytes of the real graphs at the size in question, over this device's peaks, measured right then. Then
every component in this process, and whole requests to a real server. Encodings are remembered after the warm-up, as they are for
anybody who asks for a second picture; the encoders' own times stand in their rows.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.commandline import add_checkpoint, add_placement, add_variant
from export.onnx.example_inputs import example_inputs
from export.outputs import require_file
from export.paths import onnx_folder
from faceclip_serving.contract.components import components
from faceclip_serving.contract.names import COMPONENTS
from faceclip_serving.contract.placements import Placement, placement_of
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..measure import gpu, host_memory
from ..measure.chart import Bar, bar_chart, save_figure
from ..measure.example import PROMPT
from ..measure.floor import Peak, component_sizes, costs, floors, request_floor_s
from ..measure.report import RESULTS, emit, say
from ..measure.running import serving
from ..measure.sweep import Point, points, usual_point
from ..measure.table import table
from ..measure.timing import seconds_of
from .peers import device_of

if TYPE_CHECKING:
    from faceclip import FaceCLIPPipeline
    from server.process import TritonServer

WARM_UPS = 2
BUDGET_S = 30.0
"""Runs of one stage end when they have taken so long, but never before `LEAST_RUNS`."""
LEAST_RUNS = 3
PERCENTILES = (50, 90, 99)


def timed(run: Callable[[], object], runs: int, warm_ups: int = WARM_UPS, budget_s: float = BUDGET_S) -> list[float]:
    """Seconds of up to `runs` runs after `warm_ups` others."""
    for _ in range(warm_ups):
        run()
    seconds: list[float] = []
    while len(seconds) < runs and (len(seconds) < LEAST_RUNS or sum(seconds) < budget_s):
        seconds.append(seconds_of(run))
    return seconds


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99 in seconds, and how many runs they stand for. With fewer than 100 runs, p99 is close to the slowest."""
    return {**{f"p{each}_s": round(float(np.percentile(seconds, each)), 6) for each in PERCENTILES}, "runs": len(seconds)}


def stage_times(
    variant: Variant, placement: Placement, repository: Path, point: Point, runs: int
) -> dict[str, dict[str, float]]:
    """Each component that runs on ONNX Runtime, alone in this process."""
    from faceclip_serving.models.onnx_component import OnnxComponent

    found = {}
    for name in COMPONENTS:
        runtime = placement.components[name].runtime
        if not runtime.providers:
            continue  # Triton's own backend runs it; the request's timings have it
        signature = components(variant)[name]
        component = OnnxComponent(repository / placement.folder(name) / runtime.artifact, signature, runtime.providers, {})
        inputs = example_inputs(variant, signature, component_sizes(variant, name, point))
        found[name] = summary(timed(lambda c=component, i=inputs: c.run(i), runs))  # type: ignore[misc]
        say(f"{point.label}: {name}: {found[name]['p50_s'] * 1e3:.1f} ms")
    return found


def request_times(server: TritonServer, pipe: FaceCLIPPipeline, point: Point, runs: int) -> dict[str, Any]:
    """Whole requests, seeds 0, 1, …: percentiles, pictures per second, memory, and energy where the driver counts it."""
    seeds = itertools.count()

    def request() -> None:
        pipe(PROMPT, seed=next(seeds), **point.settings, output_type="bytes")

    idle = host_memory.usage(server)
    host_memory.start_peak(server)
    with gpu.Peak(host_memory.pids(server)) as on_gpu:
        for _ in range(WARM_UPS):
            request()
        joules = gpu.energy_j()
        seconds = timed(request, runs, warm_ups=0)
        after = gpu.energy_j()
    memory = {"idle_bytes": idle["now"], "peak_bytes": host_memory.usage(server)["peak"]}
    if on_gpu.bytes is not None:
        memory |= {"gpu_idle_bytes": idle["gpu"], "gpu_peak_bytes": on_gpu.bytes}
    energy = {} if joules is None or after is None else {"joules_per_image": (after - joules) / (len(seconds) * point.images)}
    rate = len(seconds) * point.images / sum(seconds)
    say(f"{point.label}: {rate:.3g} images/s")
    return {**summary(seconds), "images_per_s": round(rate, 4), **memory, **energy, "seconds": [round(s, 5) for s in seconds]}


def measure_latency(variant: Variant, chosen: Sequence[Point], runs: int, checkpoint: Path | None = None) -> dict[str, Any]:
    """The floor and the times of every point; a server per placement."""
    from ..measure.device_peak import measure_peak  # torch

    peaks: dict[str, tuple[Peak, dict[str, Any]]] = {}
    measured = []
    for name, group in itertools.groupby(chosen, key=lambda point: point.placement):
        placement = placement_of(variant, name)
        device = device_of(placement)
        if device not in peaks:
            peaks[device] = measure_peak(device)
            say(f"peak of {device}: {peaks[device][1]['gflop_per_s']} GFLOP/s, {peaks[device][1]['gbyte_per_s']} GB/s")
        with serving(variant, placement, checkpoint) as (server, pipe):
            measured += [_point(variant, placement, server, pipe, point, runs, peaks[device][0]) for point in group]
    return {
        "variant": variant.name,
        "peaks": {device: found for device, (_, found) in peaks.items()},
        "warm_ups": WARM_UPS,
        "runs": runs,
        "cores": os.cpu_count(),
        "gpus": gpu.devices(),
        "points": measured,
    }


def _point(
    variant: Variant, placement: Placement, server: TritonServer, pipe: FaceCLIPPipeline, point: Point, runs: int, peak: Peak
) -> dict[str, Any]:
    work = costs(variant, placement, onnx_folder(variant), point)
    floor = floors(work, peak)
    say(f"{point.label}: floor\n{floor_table(floor)}")
    return {
        **asdict(point),
        "label": point.label,
        "floor": floor,
        "request_floor_s": request_floor_s(work, peak, point.steps),
        "stages": stage_times(variant, placement, server.repository, point, runs),
        "request": request_times(server, pipe, point, runs),
    }


def floor_table(floor: dict[str, dict[str, Any]]) -> str:
    rows = [
        [name, each["flops"] / 1e9, each["weight_bytes"] / 1e6, each["floor_s"] * 1e3, each["unfused_s"] * 1e3]
        for name, each in floor.items()
    ]
    return table(["component", "GFLOP", "weights MB", "floor ms", "unfused ms"], rows)


def times_table(measured: Sequence[dict[str, Any]]) -> str:
    """A line per stage and request of every point."""
    rows: list[list[str | float | None]] = []
    for point in measured:
        for name, times in point["stages"].items():
            rows.append([f"{point['label']}: {name}", *_times(times, point["floor"][name]["floor_s"]), None, None])
        request = point["request"]
        figures = [request["images_per_s"], request["peak_bytes"] / 1e6]
        rows.append([f"{point['label']}: request", *_times(request, point["request_floor_s"]), *figures])
    return table(["what", "p50 ms", "p90 ms", "p99 ms", "floor ms", "x floor", "images/s", "peak MB"], rows)


def _times(times: dict[str, Any], floor_s: float) -> list[float]:
    return [*(times[f"p{percent}_s"] * 1e3 for percent in PERCENTILES), floor_s * 1e3, times["p50_s"] / floor_s]


def bars(measured: Sequence[dict[str, Any]]) -> list[Bar]:
    """Of one point its stages and the request; of several their requests."""
    if len(measured) > 1:
        return [_bar(point["label"], point["request"], point["request_floor_s"]) for point in measured]
    (point,) = measured
    stages = [_bar(name, times, point["floor"][name]["floor_s"]) for name, times in point["stages"].items()]
    return [*stages, _bar("request, end to end", point["request"], point["request_floor_s"])]


def _bar(label: str, times: dict[str, Any], floor_s: float) -> Bar:
    return Bar(label, times["p50_s"] * 1e3, floor_s * 1e3, times["p99_s"] * 1e3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    add_placement(parser)
    parser.add_argument("--runs", type=int, default=100, help="of each stage and request (default: %(default)s)")
    parser.add_argument(
        "--sweep", nargs="+", default=[], metavar="AXIS=VALUES", help="size=128x128,192x128 steps=4,8 images=1,2 placement=cpu"
    )
    parser.add_argument("--chart", type=Path, metavar="PATH", help="without ending (default: build/benchmarks/latency-VARIANT)")
    add_checkpoint(parser, "folder of the official layout (default: seeded weights)")


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    kept = RESULTS if os.environ.get("FACECLIP_SAVE_RESULTS") else Path("build/benchmarks")
    path = args.chart or kept / f"latency-{variant.name}"
    charts = [path.with_name(path.name + ending) for ending in (".svg", ".png")]
    for chart in charts:
        require_file(chart)  # before minutes are spent
    chosen = points(variant, usual_point(variant, args.placement), args.sweep)
    document = measure_latency(variant, chosen, args.runs, args.checkpoint)
    print(times_table(document["points"]), file=sys.stderr)
    figure = bar_chart(f"{variant.name}: milliseconds against the floor", "ms", bars(document["points"]))
    print("chart:", *(save_figure(figure, chart) for chart in charts), file=sys.stderr)
    emit(f"latency-{variant.name}", document)
    return 0
