"""10, 100 and 1,000 GPUs, simulated: how requests are spread, by what the number of servers is set, how long a server takes to start, and
how many may wait at one. Says what it assumes; nothing here was measured.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..measure.report import say
from ..measure.table import Cell, table
from .simulated import Assumptions, Fleet, Outcome, Seen, Spread, Wish, percentile

SIZES = (10, 100, 1000)
LOAD = 0.7
"""Share of its time that a GPU shall be busy: what the fleet is loaded with, and what the autoscaler aims at."""
DAY_S = 3600.0
NOTE = "simulated: no figure here was measured; the assumptions stand in `assumed`"


# ----------------------------------------------------------------------------------------------------------- which server is taken
def _any(counts: NDArray[np.int64], chance: random.Random, sent: int) -> int:
    return chance.randrange(len(counts))


def _in_turn(counts: NDArray[np.int64], chance: random.Random, sent: int) -> int:
    return sent % len(counts)


def _least_of_two(counts: NDArray[np.int64], chance: random.Random, sent: int) -> int:
    first, second = chance.randrange(len(counts)), chance.randrange(len(counts))
    return first if counts[first] <= counts[second] else second


def _least_of_all(counts: NDArray[np.int64], chance: random.Random, sent: int) -> int:
    least = np.flatnonzero(counts == counts.min())
    return int(least[chance.randrange(len(least))])


def _packed(counts: NDArray[np.int64], chance: random.Random, sent: int) -> int:
    """The fullest that has a place in its denoiser."""
    open_places = np.where(counts < Assumptions.max_active, counts, -1)
    return int(open_places.argmax()) if open_places.max() >= 0 else _least_of_all(counts, chance, sent)


SPREAD: Mapping[str, Spread] = {
    "random": _any,
    "round robin": _in_turn,
    "least of two": _least_of_two,
    "least of all": _least_of_all,
    "packed": _packed,
}


# ------------------------------------------------------------------------------------------------------- how many servers there are
def _by_in_flight(seen: Seen) -> float:
    return seen.in_flight / 4


def _by_arrivals(seen: Seen) -> float:
    return seen.arrivals_per_s * seen.gpu_s_of_a_request / LOAD


def _by_both(seen: Seen) -> float:
    """The chart's."""
    return max(_by_arrivals(seen), seen.waiting / 4)


WISHES: Mapping[str, Wish] = {"in flight ÷ 4": _by_in_flight, "arrivals": _by_arrivals, "arrivals, backlog ÷ 4": _by_both}


# --------------------------------------------------------------------------------------------------------------------- experiments
def simulate(sizes: Sequence[int] = SIZES, seed: int = 0) -> dict[str, Any]:
    """All experiments, as tables on stderr and as one document."""
    assumed = Assumptions()
    say(f"assumed: {assumed}")
    say(
        f"a mean request takes {assumed.least_gpu_s:.2f} GPU-seconds in a full denoiser, {assumed.mean_steps * assumed.call(1):.2f} alone"
    )
    found: dict[str, Any] = {"note": NOTE, "assumed": asdict(assumed), "load": LOAD}
    found["spread"] = [_spread(assumed, size, name, proxies, seed) for size in sizes for name, proxies in _ways(size)]
    _show("a fleet of a fixed size, loaded by 70 %: which server is taken", found["spread"])
    found["scaling"] = [_day(assumed, size, name, seed) for size in sizes for name in WISHES]
    _show("an hour: a third of the load, in ten minutes up to all of it, after half an hour down to a fifth", found["scaling"])
    found["effort"] = [_harder(assumed, size, name, seed) for size in sizes for name in WISHES]
    _show("half an hour of steady arrivals, which from the tenth minute on ask for twice the steps", found["effort"])
    middle = sorted(sizes)[len(sizes) // 2]
    boots = [_day(replace(assumed, boot_s=boot_s), middle, "arrivals, backlog ÷ 4", seed) for boot_s in (30, 60, 180, 600)]
    found["boot"] = [{"boot_s": boot_s, **each} for boot_s, each in zip((30, 60, 180, 600), boots, strict=True)]
    _show("the same hour, by how long a server takes to start", found["boot"])
    found["waiting"] = [_overload(replace(assumed, max_waiting=most), middle, seed) for most in (0, 8, 32)]
    _show("a fleet of a fixed size, loaded by 115 % for ten minutes of twenty: how many may wait at a server", found["waiting"])
    return found


def _ways(size: int) -> list[tuple[str, int]]:
    """Spread, and proxies. Many proxies know little, each."""
    return [*((name, 2) for name in SPREAD), ("least of all", 1), ("least of all", min(32, size))]


def _steady(assumed: Assumptions, size: int, load: float) -> float:
    """Arrivals per second that keep `size` GPUs busy for a share of the time."""
    return load * size / assumed.least_gpu_s


def _told(outcome: Outcome, seconds: float) -> dict[str, Any]:
    requests = len(outcome.latencies_s) + outcome.refused
    return {
        "requests": requests,
        "p50_s": round(percentile(outcome.latencies_s, 50), 2),
        "p95_s": round(percentile(outcome.latencies_s, 95), 2),
        "p99_s": round(percentile(outcome.latencies_s, 99), 2),
        "refused_percent": round(100 * outcome.refused / max(1, requests), 2),
        "mean_gpus": round(outcome.mean_gpus(seconds), 1),
        "busy_percent": round(100 * outcome.busy_s / (outcome.mean_gpus(seconds) * seconds), 1),
    }


def _spread(assumed: Assumptions, size: int, name: str, proxies: int, seed: int) -> dict[str, Any]:
    rate, seconds = _steady(assumed, size, LOAD), 300.0 if size >= 1000 else 1200.0
    fleet = Fleet(replace(assumed, proxies=proxies), lambda now: rate, rate, size, SPREAD[name], seed=seed)
    return {"gpus": size, "spread": name, "proxies": proxies, **_told(fleet.run(seconds), seconds)}


def day(now: float, largest: float) -> float:
    """Arrivals per second: an hour that has all that a day has."""
    points = [(0, 0.33), (600, 0.33), (1200, 1.0), (2400, 1.0), (2700, 0.2), (DAY_S, 0.2)]
    return largest * float(np.interp(now, [time for time, _ in points], [share for _, share in points]))


def _day(assumed: Assumptions, size: int, name: str, seed: int) -> dict[str, Any]:
    """`size`: GPUs that the largest load needs, loaded by `LOAD`; half as many more may be had."""
    largest = _steady(assumed, size, LOAD)
    rate: Callable[[float], float] = lambda now: day(now, largest)  # noqa: E731
    begin = max(2, math.ceil(size * 0.33))
    fleet = Fleet(assumed, rate, largest, begin, SPREAD["least of all"], WISHES[name], size * 3 // 2, seed)
    told = _told(fleet.run(DAY_S), DAY_S)
    least = float(np.mean([rate(now) for now in np.arange(0, DAY_S, 10)])) * assumed.least_gpu_s
    return {"gpus": size, "by": name, **told, "least_gpus": round(least, 1)}


def _harder(assumed: Assumptions, size: int, name: str, seed: int) -> dict[str, Any]:
    """What people ask for changes, and not how often: seconds of a request are known late."""
    rate, seconds = _steady(assumed, size, LOAD) / 2, 1800.0
    effort: Callable[[float], float] = lambda now: 2.0 if now >= 600 else 1.0  # noqa: E731
    begin = math.ceil(size / 2)
    fleet = Fleet(assumed, lambda now: rate, rate, begin, SPREAD["least of all"], WISHES[name], size * 3 // 2, seed, effort)
    return {"gpus": size, "by": name, **_told(fleet.run(seconds), seconds)}


def _overload(assumed: Assumptions, size: int, seed: int) -> dict[str, Any]:
    usual, much, seconds = _steady(assumed, size, LOAD), _steady(assumed, size, 1.15), 1200.0
    rate: Callable[[float], float] = lambda now: much if 300 <= now < 900 else usual  # noqa: E731
    fleet = Fleet(assumed, rate, much, size, SPREAD["least of all"], seed=seed)
    return {"gpus": size, "max_waiting": assumed.max_waiting, **_told(fleet.run(seconds), seconds)}


def _show(title: str, rows: Sequence[Mapping[str, Cell]]) -> None:
    say(f"\n  {title}\n")
    for line in table(list(rows[0]), [list(row.values()) for row in rows]).splitlines():
        say(line)
