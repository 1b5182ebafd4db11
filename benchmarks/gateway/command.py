"""The gateway under load and under kills, before a real server whose denoiser sleeps instead of computing.

On a processor the denoiser would take the cores that the gateway needs; as on a GPU it leaves them here. So what is told is what the
gateway adds, and no time is one of a real denoiser. Three parts:

  load      64 clients through the gateway, and the same by gRPC: what the gateway adds to a request
  memory    requests of all kinds: whether the gateway grows
  restarts  200 jobs, while the gateway is killed at random moments and the server twice

Ends with code 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.commandline import add_variant
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.table import VARIANTS

from ..measure.report import emit, say
from ..measure.sleeping import CARD, QUICK, with_sleeping_denoiser

PARTS = ("load", "memory", "restarts")
NOTE = "the denoiser sleeps; no time here is one of a real denoiser"
AT_MOST = {
    "overhead_ms_p50": 10.0,
    "rss_slope_mb_per_1000": 3.0,
    "lost_jobs": 0,
    "duplicated_jobs": 0,
    "wrong_pictures": 0,
    "untold_webhooks": 0,
    "photographs_left": 0,
}
"""What is promised."""


def measure(repository: Path, args: argparse.Namespace) -> dict[str, Any]:
    from .load import load, memory  # numpy, the client, a web client
    from .restarts import restarts

    found: dict[str, Any] = {}
    for part in args.parts:
        say(part)
        with (
            with_sleeping_denoiser(repository, CARD if part == "load" else QUICK) as sleeping,
            tempfile.TemporaryDirectory(prefix="gateway-") as folder,
        ):
            if part == "load":
                found[part] = load(sleeping, Path(folder), args.clients, args.requests, steps=4)
            elif part == "memory":
                found[part] = memory(sleeping, Path(folder), args.clients, args.memory_requests, steps=4)
            else:
                found[part] = restarts(sleeping, Path(folder), args.jobs, args.gateway_kills, server_kills=2)
    return found


def figures(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The promised ones, out of their parts."""
    return {name: part[name] for part in found.values() for name in AT_MOST if name in part}


def broken(told: Mapping[str, Any]) -> Sequence[str]:
    """The promises that did not hold, in words."""
    return [
        f"{name} is at most {most}, not {told[name]}" for name, most in AT_MOST.items() if name in told and told[name] > most
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    parser.add_argument("--clients", type=int, default=64, help="at once (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=2, help="of each client in a round of load (default: %(default)s)")
    parser.add_argument("--memory-requests", type=int, default=4000, help="of memory (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=200, help="of restarts (default: %(default)s)")
    parser.add_argument("--gateway-kills", type=int, default=8, help="of restarts (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="(default: all)")


def run(args: argparse.Namespace) -> int:
    from export.repository.from_nothing import build_repository  # torch

    variant = VARIANTS[args.variant]
    found = measure(build_repository(variant, CPU), args)
    told = figures(found)
    failed = broken(told)
    emit(f"gateway-{variant.name}", {"variant": variant.name, "note": NOTE, **told, **found, "promises_broken": failed})
    for text in failed:
        say(f"broken: {text}")
    return 1 if failed else 0
