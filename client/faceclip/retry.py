"""When a failed call may be sent again, and how long to wait before that. Knows errors and the clock; sends nothing itself."""

from __future__ import annotations

import random
import time
from collections import Counter

from .errors import FaceCLIPError, ServerBusyError

CONNECT_RETRIES = 4
"""Further attempts where the server was not reached: about 4 s in all, enough for a restart behind a load balancer."""
LOST_RETRIES = 1
"""Further attempts where the server was lost on the way, of a call that may be repeated. One: it may be what brought the server down."""
FIRST_DELAY_S = 0.25
MAX_DELAY_S = 8.0


class Retry:
    """The attempts of one call: at most `timeout_s` in all (None: no limit), `busy_retries` of them after a refusal as busy.

    `repeatable`: what it gives and does is the same however often it is sent, such as a drawing with a seed.
    """

    def __init__(self, timeout_s: float | None, busy_retries: int = 0, repeatable: bool = False) -> None:
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._allowed = {"busy": busy_retries, "not begun": CONNECT_RETRIES, "lost": LOST_RETRIES if repeatable else 0, "": 0}
        self._attempts: Counter[str] = Counter()  # each kind of failure has a count of its own
        self._told: FaceCLIPError | None = None

    def remaining_s(self) -> float | None:
        """Seconds left for the next attempt, above 0; None: no limit."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 1e-3)

    def delay_s(self, error: FaceCLIPError) -> float:
        """Seconds to wait before the next attempt. Raises `error` if there must not be one; where the server goes away, what it told
        first."""
        kind = _kind(error)
        if self._attempts[kind] >= self._allowed[kind]:
            raise self._told if self._told is not None and kind == "not begun" else error
        if self._told is None and kind in ("lost", "not begun") and not error.unreached:
            self._told = error
        # Jitter, so that clients refused together do not come back together.
        delay = min(FIRST_DELAY_S * 2.0 ** self._attempts[kind], MAX_DELAY_S) * random.uniform(0.75, 1.25)
        if isinstance(error, ServerBusyError) and error.retry_after_s is not None:
            delay = error.retry_after_s * random.uniform(1.0, 1.25)
        remaining = self.remaining_s()
        if remaining is not None and delay >= remaining:
            raise error
        self._attempts[kind] += 1
        return delay


def _kind(error: FaceCLIPError) -> str:
    if isinstance(error, ServerBusyError):
        return "busy"
    return "not begun" if error.safe_to_retry else "lost" if error.lost else ""
