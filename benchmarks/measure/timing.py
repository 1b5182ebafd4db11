"""How long something takes."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds_of(run: Callable[[], object]) -> float:
    """Seconds on the clock of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
