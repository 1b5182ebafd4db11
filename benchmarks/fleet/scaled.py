"""More servers: how much more is drawn, how evenly, and how long a short request takes among long ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from server.metrics import read_metrics

from ..measure.report import say
from .load import Kind, calling, percentile
from .running import Fleet, running

PICTURE = Kind("picture", steps=20)
LONG, SHORT = Kind("long", steps=50), Kind("short", steps=4)
CALLERS = 8
"""Of each server: as many as it draws at once."""
LONG_CALLERS, SHORT_CALLERS = 5, 2
"""Of each server, and of all: one server's places are not all taken."""
RAMP_S = 4.0
"""Until batches are as full as they become."""


def scaled(repository: Path, folder: Path, servers: int, seconds: float) -> dict[str, Any]:
    """Figures of so many servers; `seconds` that each of two loads lasts."""
    with running(repository, servers, folder / f"fleet-{servers}.log", f"--logs={folder}") as fleet:
        found = {**_throughput(fleet, servers, seconds), **_short_among_long(fleet, servers, seconds)}
        fleet.end()
    say(f"{servers} servers: " + ", ".join(f"{name} {value}" for name, value in found.items()))
    return found


def _throughput(fleet: Fleet, servers: int, seconds: float) -> dict[str, Any]:
    with calling(fleet.url, {PICTURE: CALLERS * servers}) as calls:
        time.sleep(RAMP_S)
        began, before = time.monotonic(), _pictures(fleet)
        time.sleep(seconds)
        after, lasted_s = _pictures(fleet), time.monotonic() - began
    made = [late - early for early, late in zip(before, after, strict=True)]
    whole = [call.seconds for call in calls.of(since=began) if not call.error]
    return {
        "pictures_per_s": round(sum(made) / lasted_s, 3),
        "spread": made,
        "p50_s": round(percentile(whole, 0.5), 3),
        "p99_s": round(percentile(whole, 0.99), 3),
        "failed": calls.told()["failed"],
    }


def _short_among_long(fleet: Fleet, servers: int, seconds: float) -> dict[str, Any]:
    with calling(fleet.url, {LONG: LONG_CALLERS * servers, SHORT: SHORT_CALLERS}) as calls:
        time.sleep(RAMP_S)
        began = time.monotonic()
        time.sleep(seconds)
    whole = [call.seconds for call in calls.of(SHORT, since=began) if not call.error]
    return {
        "short_calls": len(whole),
        "short_p50_s": round(percentile(whole, 0.5), 3),
        "short_p99_s": round(percentile(whole, 0.99), 3),
        "short_failed": calls.told()["failed"],
    }


def _pictures(fleet: Fleet) -> list[int]:
    """That each server has drawn so far."""
    name = 'faceclip_requests_total{outcome="ok"}'
    return [int(read_metrics(f"127.0.0.1:{port}").get(name, 0)) for port in fleet.metrics_ports]
