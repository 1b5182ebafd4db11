"""Ours against its peers, in one run, on equal work: the same weights, encoder outputs, noise, schedule, guidance and threads.

Peers take turns, and the order turns as well. Served and in-process requests also tokenise and write a PNG, which diffusers does
not. `ours_over` is a peer's time over the served one: above 1, ours is faster; `ours_over_cpu` the same in processor seconds, which
say more on a machine that others use too. There, set OMP_WAIT_POLICY=PASSIVE: torch's threads otherwise spin while they wait.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from export.commandline import add_checkpoint, add_placement, add_variant
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import Placement, placement_of
from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..measure import gpu, host_memory
from ..measure.pictures import decoded, picture_psnr_db
from ..measure.report import THREADS, emit, say
from ..measure.running import PLAIN, serving
from ..measure.timing import seconds_of
from .peers import COMPILED, EAGER, ONNXRUNTIME, PEERS, SERVED, Work, absent, default_work, make_peers, served_peer

SMALLEST_PSNR_DB = 35.0
"""Below this the pictures are not the same work. The oracle's CPU pictures are far above."""
REST_S = 0.1
"""Between turns: threads of the last peer that still spin go to sleep."""

Spent = dict[str, list[float]]
"""Peer -> seconds of each round."""


class DifferentWork(UserError):
    """Pictures that should agree do not, so that times say nothing."""


def take_turns(peers: Mapping[str, Callable[[], object]], rounds: int, cpu_s: Callable[[], float]) -> tuple[Spent, Spent]:
    """Seconds on the clock, and of processors, of each peer in each round; the order moves on by one every round.

    `cpu_s`: processor seconds spent so far by all that any peer is made of.
    """
    seconds: Spent = {name: [] for name in peers}
    processors: Spent = {name: [] for name in peers}
    names = list(peers)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            time.sleep(REST_S)
            spent = cpu_s()
            seconds[name].append(seconds_of(peers[name]))
            processors[name].append(cpu_s() - spent)
        say(f"round {turn + 1} of {rounds}: " + ", ".join(f"{name} {each[-1]:.3f} s" for name, each in seconds.items()))
    return seconds, processors


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor seconds of this process and of those named, all threads, user and system."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return time.process_time() + float(sum(each.user + each.system for each in times))


def ratios(seconds: Mapping[str, Sequence[float]], ours: str) -> dict[str, float]:
    """Every other peer's median time over that of `ours`: above 1, ours is faster."""
    mine = statistics.median(seconds[ours])
    return {name: round(statistics.median(each) / mine, 3) for name, each in seconds.items() if name != ours}


def compare_peers(
    variant: Variant, placement: Placement, work: Work, rounds: int, skip: Sequence[str], checkpoint: Path | None
) -> dict[str, Any]:
    """One server, and every peer that is not left out in this process."""
    import torch

    torch.set_num_threads(THREADS)
    reasons = absent(placement, [name for name in PEERS if name not in skip], skip)
    with serving(variant, placement, checkpoint, settings=PLAIN) as (server, pipe):
        wanted = [name for name in PEERS if name not in reasons]
        peers = {SERVED: served_peer(pipe, work), **make_peers(variant, placement, work, server.repository, checkpoint, wanted)}
        pictures, first_s = {}, {}
        for name, draw in peers.items():
            started = time.perf_counter()
            pictures[name] = _pixels(draw())
            first_s[name] = time.perf_counter() - started
            say(f"first picture of {name}: {first_s[name]:.1f} s")
        psnr = agreement(pictures)
        pids = host_memory.pids(server)
        seconds, processors = take_turns(peers, rounds, lambda: cpu_seconds(pids))
    return {
        **figures(seconds, processors, first_s),
        "variant": variant.name,
        "placement": placement.name,
        "work": asdict(work),
        "psnr_db": psnr,
        "rounds": rounds,
        "threads": THREADS,
        "environment": {name: os.environ[name] for name in sorted(os.environ) if name.startswith(("OMP_", "GOMP_", "MKL_"))},
        "gpus": gpu.devices(),
        "absent": reasons,
    }


def figures(
    seconds: Mapping[str, Sequence[float]], processors: Mapping[str, Sequence[float]], first_s: Mapping[str, float]
) -> dict[str, Any]:
    """What the seconds of all rounds come to. `compile_s`: what the first compiled picture took beyond a usual one."""
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    compiled = {"compile_s": round(first_s[COMPILED] - medians[COMPILED], 1)} if COMPILED in seconds else {}
    return {
        "ours_over": ratios(seconds, SERVED),
        "ours_over_cpu": ratios(processors, SERVED),
        "onnxruntime_over": ratios(seconds, ONNXRUNTIME) if ONNXRUNTIME in seconds else {},
        "median_s": {name: round(median, 4) for name, median in medians.items()},
        "median_cpu_s": {name: round(statistics.median(each), 4) for name, each in processors.items()},
        **compiled,
        "seconds": {name: [round(second, 4) for second in each] for name, each in seconds.items()},
    }


def agreement(pictures: Mapping[str, Array]) -> dict[str, float]:
    """PSNR of every picture to diffusers' own, or else to the served one. Raises `DifferentWork`."""
    reference = EAGER if EAGER in pictures else SERVED
    found = {
        name: round(picture_psnr_db(picture, pictures[reference]), 1) for name, picture in pictures.items() if name != reference
    }
    for name, psnr in found.items():
        if psnr < SMALLEST_PSNR_DB:
            raise DifferentWork(
                f"the picture of {name} is {psnr} dB from that of {reference}, expected at least {SMALLEST_PSNR_DB}: not the same"
                " work, so their times say nothing; see `python -m benchmarks parity`"
            )
    return found


def _pixels(picture: bytes | Array) -> Array:
    return decoded(picture) if isinstance(picture, bytes) else picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    add_placement(parser)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each peer (default: %(default)s)")
    parser.add_argument("--skip", choices=PEERS, action="append", default=[], help="a peer to leave out; may be repeated")
    parser.add_argument("--steps", type=int, help="default: the variant's; likewise --height and --width")
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    add_checkpoint(parser, "folder of the official layout (default: seeded weights)")


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    given = {name: getattr(args, name) for name in ("steps", "height", "width") if getattr(args, name)}
    work = Work(**{**asdict(default_work(variant)), **given})
    document = compare_peers(variant, placement_of(variant, args.placement), work, args.rounds, args.skip, args.checkpoint)
    emit(f"compare-{variant.name}", document)
    return 0
