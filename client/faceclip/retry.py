"""When a failed call may be sent again, and how long to wait before that. Knows errors and the clock; sends nothing itself."""

from __future__ import annotations

import random
import time
from collections import Counter

from .errors import FaceCLIPError, ServerBusyError

CONNECT_RETRIES = 4
"""Further attempts where the server was not reached: about 4 s in all, enough for a restart behind a load balancer."""
FIRST_DELAY_S = 0.25
MAX_DELAY_S = 8.0


class Retry:
    """The attempts of one call: at most `timeout_s` in all (None: no limit), `busy_retries` of them after a refusal as busy."""

    def __init__(self, timeout_s: float | None, busy_retries: int = 0) -> None:
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._busy_retries = busy_retries
        self._attempts: Counter[bool] = Counter()  # by whether the server was busy: connections have a count of their own

    def remaining_s(self) -> float | None:
        """Seconds left for the next attempt, above 0; None: no limit."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 1e-3)

    def delay_s(self, error: FaceCLIPError) -> float:
        """Seconds to wait before the next attempt. Raises `error` if there must not be one."""
        busy = isinstance(error, ServerBusyError)
        allowed = self._busy_retries if busy else CONNECT_RETRIES if error.safe_to_retry else 0
        if self._attempts[busy] >= allowed:
            raise error
        # Jitter, so that clients refused together do not come back together.
        delay = min(FIRST_DELAY_S * 2.0 ** self._attempts[busy], MAX_DELAY_S) * random.uniform(0.75, 1.25)
        if isinstance(error, ServerBusyError) and error.retry_after_s is not None:
            delay = error.retry_after_s * random.uniform(1.0, 1.25)
        remaining = self.remaining_s()
        if remaining is not None and delay >= remaining:
            raise error
        self._attempts[busy] += 1
        return delay
