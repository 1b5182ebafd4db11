"""How well the scheduler serves many at once: throughput against the denoiser alone, late joiners, cancellation, its own cost.

Everything is a ratio within one run on one machine. The ideal is the denoiser's own throughput in one process, on the same
number of rows at the same batch size: what a server of no cost whatsoever would reach.

On a processor the denoiser shares its cores with all that serves it: decoding, photographs, the server. With --sleeping it sleeps
instead, as one on a GPU leaves the cores to others; then the ideal is known, and what is lost is the server's.

That server has neither marks nor checks. Throughput is measured once more with the settings that servers have by default.
"""

from __future__ import annotations

import argparse
import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.commandline import add_checkpoint, add_placement, add_variant
from export.onnx.example_inputs import example_inputs
from faceclip_serving.contract.components import bounds, components
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.placements import CPU, Placement, placement_of
from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant
from server.metrics import read_metrics

from ..measure.pictures import decoded, picture_psnr_db
from ..measure.report import emit, result_name, say
from ..measure.running import PLAIN, serving
from ..measure.sleeping import CARD, Sleep
from ..measure.sleeping_denoiser import predict
from ..measure.timing import seconds_of

if TYPE_CHECKING:
    from faceclip import FaceCLIPPipeline
    from server.process import TritonServer

ROWS_PER_PICTURE = 2
MIN_STEP_S = 0.03
CONCURRENCY = (1, 2, 4, 8)
COUNTERS = ("ticks_total", "denoiser_rows_total", "denoiser_seconds_total", "scheduler_seconds_total", "request_steps_total")
SAME_DB = 50
"""Batches of other sizes round differently in the last bits: above this it is the same picture."""


class Bench:
    """One server, one client, one size, and the denoiser in this process."""

    def __init__(
        self,
        variant: Variant,
        placement: Placement,
        server: TritonServer,
        pipe: FaceCLIPPipeline,
        steps: int,
        sleep: Sleep | None = None,
    ) -> None:
        from faceclip_serving.models.onnx_component import OnnxComponent

        self.variant, self.server, self.pipe, self.steps, self.sleep = variant, server, pipe, steps, sleep
        self.max_rows = placement.denoiser_rows
        runtime = placement.components[DENOISER].runtime
        self.denoiser = OnnxComponent(
            server.repository / placement.folder(DENOISER) / runtime.artifact,
            components(variant)[DENOISER],
            runtime.providers,
            bounds(variant, placement.denoiser_rows)[DENOISER],
        )
        self.side, self.step_s = self._size()

    def _size(self) -> tuple[int, float]:
        """The smallest square picture whose step takes `MIN_STEP_S`, and that time."""
        low, high = self.variant.limits.size
        side = max(low, 64)
        if self.sleep is not None:
            return side, self.denoise_s(ROWS_PER_PICTURE, side, repeats=5)
        while (seconds := self.denoise_s(ROWS_PER_PICTURE, side, repeats=5)) < MIN_STEP_S and side < high:
            side += 32
        return side, seconds

    def denoise_s(self, rows: int, side: int, repeats: int) -> float:
        """Median seconds of one denoiser call of so many rows in this process."""
        cells = side // self.variant.latent_scale
        signature = components(self.variant)[DENOISER]
        inputs = example_inputs(self.variant, signature, {"rows": rows, "latent_height": cells, "latent_width": cells})
        run: Callable[[Mapping[str, Array]], Mapping[str, Array]] = self.denoiser.run
        if self.sleep is not None:
            run = partial(predict, **asdict(self.sleep))
        run(inputs)
        return statistics.median(seconds_of(lambda: run(inputs)) for _ in range(repeats))

    def generate(self, seed: int, steps: int | None = None, **options: Any) -> bytes:
        result = self.pipe(
            "a portrait",
            seed=seed,
            num_inference_steps=steps or self.steps,
            height=self.side,
            width=self.side,
            output_type="bytes",
            **options,
        )
        return bytes(result.images[0])

    def metrics(self) -> dict[str, float]:
        return read_metrics(f"127.0.0.1:{self.server.ports.metrics}")

    def settle(self) -> dict[str, float]:
        """Metrics once nothing runs any more; the sampler tells them four times a second."""
        before = self.metrics()
        while True:
            time.sleep(max(0.3, 4 * self.step_s))
            now = self.metrics()
            if now.get("faceclip_ticks_total") == before.get("faceclip_ticks_total"):
                return now
            before = now


def throughput(bench: Bench, concurrency: int, requests_each: int) -> dict[str, float]:
    """Requests of `concurrency` clients at once, against the ideal measured right before and after."""
    rows = min(ROWS_PER_PICTURE * concurrency, bench.max_rows)
    ideal = [bench.denoise_s(rows, bench.side, repeats=10)]
    before = bench.settle()

    def client(number: int) -> None:
        for i in range(requests_each):
            bench.generate(seed=number * 100 + i)

    with ThreadPoolExecutor(concurrency) as clients:
        seconds = seconds_of(lambda: list(clients.map(client, range(concurrency))))
    after = bench.settle()
    ideal.append(bench.denoise_s(rows, bench.side, repeats=10))
    done = {name: after[f"faceclip_{name}"] - before.get(f"faceclip_{name}", 0.0) for name in COUNTERS}
    images = concurrency * requests_each
    ideal_s = images * bench.steps * ROWS_PER_PICTURE / rows * statistics.mean(ideal)
    return {
        "images_per_s": images / seconds,
        "over_ideal": ideal_s / seconds,
        "mean_rows_per_tick": done["denoiser_rows_total"] / done["ticks_total"],
        "scheduler_us_per_request_step": done["scheduler_seconds_total"] / done["request_steps_total"] * 1e6,
        "denoiser_s": done["denoiser_seconds_total"],
        "wall_s": seconds,
    }


def throughputs(bench: Bench, requests_each: int) -> dict[str, dict[str, float]]:
    """`throughput` of each number of clients, by that number."""
    bench.generate(seed=0, steps=2)
    levels = {}
    for concurrency in CONCURRENCY:
        levels[str(concurrency)] = level = throughput(bench, concurrency, requests_each)
        say(f"concurrency {concurrency}: " + ", ".join(f"{name} {value:.3g}" for name, value in level.items()))
    return levels


def late_joiner(bench: Bench, repeats: int) -> float:
    """Median time of a 4-step request that arrives midway in a 50-step one, over its time alone."""
    solo, late = [], []
    for i in range(repeats):
        solo.append(seconds_of(lambda: bench.generate(seed=1, steps=4)))
        with ThreadPoolExecutor(1) as background:
            long = background.submit(bench.generate, 2, 50)
            time.sleep(bench.step_s * (10 + 5 * i))
            late.append(seconds_of(lambda: bench.generate(seed=1, steps=4)))
            long.result()
    return statistics.median(late) / statistics.median(solo)


def rows_after_cancel(bench: Bench, repeats: int) -> int:
    """Most denoiser rows that ran for a stream beyond the steps that its caller heard of before it left."""
    most = 0
    for i in range(repeats):
        before = bench.settle()
        stream = bench.pipe.stream("a portrait", seed=i, num_inference_steps=100, height=bench.side, width=bench.side)
        heard = 3 + i
        for _ in range(heard):
            next(stream)
        stream.close()
        rows = bench.settle()["faceclip_denoiser_rows_total"] - before["faceclip_denoiser_rows_total"]
        most = max(most, int(rows) - heard * ROWS_PER_PICTURE)
    return most


def cancel_among_others(bench: Bench, requests: int, cancels: int) -> dict[str, int]:
    """Random cancels among other requests: how many of the others are not the pictures that they are alone."""
    rng = random.Random(0)
    doomed = set(rng.sample(range(requests), cancels))
    plans = [(rng.randint(2, 8), rng.randrange(5)) for _ in range(requests)]  # steps, seed
    alone = {plan: bench.generate(seed=plan[1], steps=plan[0]) for plan in sorted(set(plans))}
    lock, cancelled, wrong = threading.Lock(), 0, 0

    def one(i: int) -> None:
        nonlocal cancelled, wrong
        steps, seed = plans[i]
        if i in doomed:
            stream = bench.pipe.stream("a portrait", seed=seed, num_inference_steps=40, height=bench.side, width=bench.side)
            for _ in range(steps):
                next(stream)
            stream.close()
            with lock:
                cancelled += 1
        elif (
            picture_psnr_db(decoded(bench.generate(seed=seed, steps=steps, retries=20)), decoded(alone[steps, seed])) < SAME_DB
        ):
            with lock:
                wrong += 1

    with ThreadPoolExecutor(6) as clients:
        list(clients.map(one, range(requests)))
    return {"requests": requests, "cancelled": cancelled, "others_that_differ": wrong}


def measure_serving(
    variant: Variant,
    steps: int,
    requests_each: int,
    checkpoint: Path | None = None,
    sleep: Sleep | None = None,
    placement: Placement = CPU,
) -> dict[str, Any]:
    """Everything; progress on stderr."""
    with serving(variant, placement, checkpoint, sleep, PLAIN) as (server, pipe):
        bench = Bench(variant, placement, server, pipe, steps, sleep)
        say(f"{bench.side}x{bench.side} pictures, {steps} steps; a denoiser step of 2 rows takes {bench.step_s * 1e3:.0f} ms")
        levels = throughputs(bench, requests_each)
        joiner = late_joiner(bench, repeats=3)
        say(f"late joiner: {joiner:.2f} x its solo time")
        after_cancel = rows_after_cancel(bench, repeats=5)
        say(f"rows after a cancel: at most {after_cancel}")
        crowd = cancel_among_others(bench, requests=100, cancels=30)
        say(f"cancels in a crowd: {crowd}")
    with serving(variant, placement, checkpoint, sleep) as (server, pipe):
        say("with marks and checks")
        usual = throughputs(Bench(variant, placement, server, pipe, steps, sleep), requests_each)
    return {
        "variant": variant.name,
        "placement": placement.name,
        **(
            {}
            if sleep is None
            else {"note": "the denoiser sleeps; no time here is one of a real denoiser", "sleep": asdict(sleep)}
        ),
        "picture": [bench.side, bench.side],
        "steps": steps,
        "denoiser_step_ms": round(bench.step_s * 1e3, 1),
        "throughput_over_ideal": {key: round(level["over_ideal"], 3) for key, level in levels.items()},
        "throughput_over_ideal_with_marks_and_checks": {key: round(level["over_ideal"], 3) for key, level in usual.items()},
        "throughput_over_serial": round(levels[str(CONCURRENCY[-1])]["images_per_s"] / levels["1"]["images_per_s"], 3),
        "late_joiner_over_solo": round(joiner, 2),
        "mean_rows_per_tick": {key: round(level["mean_rows_per_tick"], 2) for key, level in levels.items()},
        "scheduler_us_per_request_step": {k: round(level["scheduler_us_per_request_step"]) for k, level in levels.items()},
        "rows_after_cancel_max": after_cancel,
        "cancel_among_others": crowd,
        "levels": levels,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    add_placement(parser)
    parser.add_argument("--steps", type=int, default=50, help="steps of the throughput requests (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=3, help="requests of each client (default: %(default)s)")
    parser.add_argument("--sleeping", action="store_true", help="the denoiser sleeps instead of computing, as if on a GPU")
    add_checkpoint(parser, "folder of the official layout (default: the variant's own or seeded weights)")


def run(args: argparse.Namespace) -> int:
    sleep, name = (CARD, "serving-sleeping") if args.sleeping else (None, "serving")
    variant = VARIANTS[args.variant]
    placement = placement_of(variant, args.placement)
    measured = measure_serving(variant, args.steps, args.requests, args.checkpoint, sleep, placement)
    emit(result_name(name, variant.name, placement.name), measured)
    return 0
