"""How well the scheduler serves many at once: throughput against the denoiser alone, late joiners, cancellation, its own cost.

Everything is a ratio within one run on one machine. The ideal is the denoiser's own throughput in one process, on the same
number of rows at the same batch size: what a server of no cost whatsoever would reach.

On a processor the denoiser shares its cores with all that serves it: decoding, photographs, the server. With --sleeping it sleeps
instead, as one on a GPU leaves the cores to others; then the ideal is known, and what is lost is the server's.

Requests of all kinds at once are measured as well: what each needs of the denoiser is known, see `mixed`.

That server has neither marks nor checks. Throughput is measured once more with the settings that servers have by default.
"""

from __future__ import annotations

import argparse
import random
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from export.commandline import add_checkpoint, add_placement, add_variant
from faceclip_serving.contract.placements import CPU, Placement, placement_of
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..measure.pictures import decoded, picture_psnr_db
from ..measure.report import emit, result_name, say
from ..measure.running import PLAIN, serving
from ..measure.sleeping import CARD, Sleep
from ..measure.timing import seconds_of
from .bench import ROWS_PER_PICTURE, SAME_DB, Bench, under_load
from .mixed import mixed

CONCURRENCY = (1, 2, 4, 8)


def throughput(bench: Bench, concurrency: int, requests_each: int) -> dict[str, float]:
    """Requests of `concurrency` clients at once, all of one kind."""
    rows = min(ROWS_PER_PICTURE * concurrency, bench.max_rows)
    images = concurrency * requests_each

    def ideal_s() -> float:
        return images * bench.steps * ROWS_PER_PICTURE / rows * bench.denoise_s(rows, bench.side, repeats=10)

    return under_load(bench, concurrency, range(images), bench.generate, ideal_s)


def throughputs(bench: Bench, requests_each: int) -> dict[str, dict[str, float]]:
    """`throughput` of each number of clients, by that number."""
    bench.generate(seed=0, steps=2)
    levels: dict[str, dict[str, float]] = {}
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
        of_all_kinds = mixed(bench, requests_each)
    with serving(variant, placement, checkpoint, sleep) as (server, pipe):
        say("with marks and checks")
        usual = throughputs(Bench(variant, placement, server, pipe, steps, sleep), requests_each)
    return {
        **described(bench, placement),
        "throughput_over_ideal": {key: round(level["over_ideal"], 3) for key, level in levels.items()},
        "throughput_over_ideal_with_marks_and_checks": {key: round(level["over_ideal"], 3) for key, level in usual.items()},
        "throughput_over_serial": round(levels[str(CONCURRENCY[-1])]["images_per_s"] / levels["1"]["images_per_s"], 3),
        "late_joiner_over_solo": round(joiner, 2),
        "mean_rows_per_tick": {key: round(level["mean_rows_per_tick"], 2) for key, level in levels.items()},
        "scheduler_us_per_request_step": {k: round(level["scheduler_us_per_request_step"]) for k, level in levels.items()},
        "rows_after_cancel_max": after_cancel,
        "cancel_among_others": crowd,
        "mixed": of_all_kinds,
        "levels": levels,
    }


def measure_mixed(
    variant: Variant,
    steps: int,
    requests_each: int,
    checkpoint: Path | None = None,
    sleep: Sleep | None = None,
    placement: Placement = CPU,
) -> dict[str, Any]:
    """Requests of all kinds at once, alone."""
    with serving(variant, placement, checkpoint, sleep, PLAIN) as (server, pipe):
        bench = Bench(variant, placement, server, pipe, steps, sleep)
        return {**described(bench, placement), "mixed": mixed(bench, requests_each)}


def described(bench: Bench, placement: Placement) -> dict[str, Any]:
    """What was measured on what."""
    slept = {
        "note": "the denoiser sleeps; no time here is one of a real denoiser",
        "sleep": bench.sleep and asdict(bench.sleep),
    }
    return {
        "variant": bench.variant.name,
        "placement": placement.name,
        **(slept if bench.sleep else {}),
        "picture": [bench.side, bench.side],
        "steps": bench.steps,
        "denoiser_step_ms": round(bench.step_s * 1e3, 1),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    add_placement(parser)
    parser.add_argument("--steps", type=int, default=50, help="steps of the throughput requests (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=3, help="requests of each client (default: %(default)s)")
    parser.add_argument("--sleeping", action="store_true", help="the denoiser sleeps instead of computing, as if on a GPU")
    parser.add_argument("--mixed", action="store_true", help="only requests of all kinds at once")
    add_checkpoint(parser, "folder of the official layout (default: the variant's own or seeded weights)")


def run(args: argparse.Namespace) -> int:
    sleep = CARD if args.sleeping else None
    name = "-".join(["serving", *(["mixed"] if args.mixed else []), *(["sleeping"] if args.sleeping else [])])
    variant = VARIANTS[args.variant]
    placement = placement_of(variant, args.placement)
    measure = measure_mixed if args.mixed else measure_serving
    measured = measure(variant, args.steps, args.requests, args.checkpoint, sleep, placement)
    emit(result_name(name, variant.name, placement.name), measured)
    return 0
