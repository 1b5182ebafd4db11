"""States of a request in which one at a time is worked for, by a thread for each: whose turn it is, and whom the thread is at."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from .fairness import Fairness
from .requests import Request, State

STAGES = (State.SCHEDULING, State.ENCODING, State.DECODING, State.DETAILING)


class Stage:
    """One of `STAGES`. All methods are called under the lock of `changed`."""

    def __init__(self, state: State, lock: threading.RLock, batch_head_start_s: float) -> None:
        self.changed = threading.Condition(lock)
        """Told when a request has come, or the end."""
        self._state = state
        self._fairness = Fairness(batch_head_start_s)
        self._at: tuple[Request, float] | None = None
        """Whom the thread is at, and since when."""

    def begin(self, alive: Iterable[Request], now: float) -> tuple[Request, Any] | None:
        """The request whose turn it is, and what is to be done for it; None where none waits. The thread is at it from now on."""
        everybody = list(alive)
        for request in self._fairness.next([each for each in everybody if each.state is self._state], [], 1, now):
            self._fairness.forget_all_but({each.tenant for each in everybody})
            self._at = request, now
            return request, request.schedule if self._state is State.SCHEDULING else request.work
        return None

    def done(self) -> Request | None:
        """The thread has done with a request, if it was at one: that one."""
        at, self._at = self._at, None
        return None if at is None else at[0]

    def is_at(self, request: Request) -> bool:
        return self._at is not None and self._at[0] is request

    def busy_s(self, now: float) -> float:
        """Seconds that the thread has been at the same request; 0 while it is at none."""
        return 0.0 if self._at is None else now - self._at[1]
