"""Times of many runs in a few figures."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of them do not exceed, with straight lines between neighbours. Raises `ValueError` for none."""
    if not values or not 0 <= percent <= 100:
        raise ValueError(f"expected at least one value and a percentage from 0 to 100, got {len(values)} values and {percent}")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99 in seconds, and how many runs they stand for. With fewer than 100 runs, p99 is close to the slowest."""
    return {**{f"p{percent}_s": round(percentile(seconds, percent), 6) for percent in (50, 90, 99)}, "runs": len(seconds)}
