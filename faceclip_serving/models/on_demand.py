"""A network that is in memory only while it is used: opened by the call that finds it closed, closed when no call came for a while.

For what few requests need, on processors whose memory holds what it loads in a second or two.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from ..contract.tensors import Array

Run = Callable[[Mapping[str, Array]], dict[str, Array]]

IDLE_S = 60.0
"""Seconds after its last call that a network is kept."""


class OnDemand:
    """`run` is the network's, one call at a time."""

    def __init__(self, opened: Callable[[], Run], idle_s: float = IDLE_S) -> None:
        """`opened` gives the network's run, whose memory is free when the run is forgotten.

        It is called here once and forgotten, so that what cannot be opened says so at the start.
        """
        opened()
        self._opened, self._idle_s = opened, idle_s
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._calls = 0
        self._timer: threading.Timer | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is in memory."""
        return self._run is not None

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The network's outputs for its inputs."""
        with self._lock:
            self._forget_timer()
            try:
                if self._run is None:
                    self._run = self._opened()
                return self._run(arrays)
            finally:
                self._calls += 1
                self._timer = threading.Timer(self._idle_s, self._close_after, [self._calls])
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """Frees it. A later call opens it again."""
        with self._lock:
            self._forget_timer()
            self._run = None

    def _close_after(self, calls: int) -> None:
        with self._lock:
            if self._calls == calls:  # else a call came while this waited for the lock
                self._run = None

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
