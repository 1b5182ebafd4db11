"""`server fleet` before real servers whose denoisers sleep instead of computing, as those on cards leave the cores to others.

So several servers on a few cores are as independent as on cards of their own. Everything else is real: Envoy, tritonserver, the client,
and the time of every process. No time is one of a real denoiser. Two parts:

  scale    1, 2 and 3 servers: pictures per second, who drew them, how long a short request takes among long ones
  losses   2 servers under load: a drain, a kill, a model's death, a rolling restart, a stop; how many calls fail

Clients send nothing again by themselves. Ends with code 1 where a promise is broken. In place of these parts:

  --simulate     10, 100 and 1,000 GPUs: spread, autoscaling, start of servers, queues; needs nothing, measures nothing
  --autoscaling  one such server under load, Prometheus, and the chart's query: whether what it wants follows what arrives
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from export.commandline import add_variant
from faceclip_serving.contract.numbers import seconds
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.table import VARIANTS

from ..measure.report import emit, say
from ..measure.sleeping import CARD, with_sleeping_denoiser

PARTS = ("scale", "losses")
NOTE = "denoisers sleep; no time here is one of a real denoiser"
LOST: Mapping[str, Callable[[Mapping[str, Any]], int]] = {
    "drain": lambda told: told["failed"],
    "sigkill_unary": lambda told: told["unary"],
    "stub": lambda told: told["begun_after"],
    "rolling_restart": lambda told: told["failed"],
    "stop": lambda told: told["begun_before"],
}
"""What must be 0 of each event, out of what became of the calls; the event is named by the first word."""
LEAST_GAIN = 1.9
"""Of two servers over one."""


def measure(repository: Path, args: argparse.Namespace) -> dict[str, Any]:
    from .losses import losses  # numpy, the client
    from .scaled import scaled

    found: dict[str, Any] = {}
    with (
        with_sleeping_denoiser(repository, CARD) as sleeping,
        tempfile.TemporaryDirectory(prefix="fleet-") as folder,
    ):
        if "scale" in args.parts:
            found["scale"] = {number: scaled(sleeping, Path(folder), number, args.seconds) for number in args.servers}
        if "losses" in args.parts:
            found["losses"] = losses(sleeping, Path(folder))
    return found


def figures(found: Mapping[str, Any]) -> dict[str, Any]:
    """The promised ones, out of their parts."""
    told: dict[str, Any] = {}
    scale = found.get("scale", {})
    for number in scale:
        if number > 1 and 1 in scale:
            told[f"throughput_{number}_over_1"] = round(scale[number]["pictures_per_s"] / scale[1]["pictures_per_s"], 3)
    if "losses" in found:
        event = {name: name.removesuffix("_unary") for name in LOST}
        told["failed"] = {name: of(found["losses"][event[name]]) for name, of in LOST.items()}
    return told


def broken(told: Mapping[str, Any]) -> list[str]:
    """The promises that did not hold, in words."""
    gain = told.get("throughput_2_over_1", LEAST_GAIN)
    slow = [f"throughput_2_over_1 is at least {LEAST_GAIN}, not {gain}"] if gain < LEAST_GAIN else []
    return [*slow, *(f"{name}: no call is lost, not {number}" for name, number in told.get("failed", {}).items() if number)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    parser.add_argument("--servers", type=int, nargs="+", default=(1, 2, 3), help="of scale (default: 1 2 3)")
    parser.add_argument("--seconds", type=seconds, default=30.0, help="of each load of scale (default: %(default)s)")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--simulate", action="store_true", help="many GPUs, simulated")
    other.add_argument("--autoscaling", action="store_true", help="the autoscaler's query; needs helm and Prometheus")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="(default: all)")


def run(args: argparse.Namespace) -> int:
    if args.simulate:
        from .simulate import simulate

        emit("fleet-simulation", simulate())
        return 0
    from export.repository.from_nothing import build_repository  # torch

    variant = VARIANTS[args.variant]
    if args.autoscaling:
        from .autoscaling import autoscaling

        told = autoscaling(build_repository(variant, CPU))
        emit("fleet-autoscaling", {"variant": variant.name, "note": NOTE, **told})
        return 0 if told["follows"] else 1
    found = measure(build_repository(variant, CPU), args)
    told = figures(found)
    failed = broken(told)
    emit("fleet", {"variant": variant.name, "note": NOTE, **told, **found, "promises_broken": failed})
    for text in failed:
        say(f"broken: {text}")
    return 1 if failed else 0
