"""Admission: how much work may be in flight, in which order it becomes active, and what a refused caller is told.

Bounded at two places: `max_active` requests share the denoiser's ticks, `max_waiting` more may wait for that. A request reserves
its place before any work is done for it; a reservation that is never used (its request failed on the way) expires. A request whose
pictures are still decoded is in flight until `finish` releases it, and needs no place.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable

from ..contract.errors import Busy

HEAD_START_S = {"interactive": 0.0, "batch": 30.0}
"""Priority -> the head start, in seconds of waiting, that others have over it. Finite, so nothing starves."""

RESERVATION_S = 120.0

DECODING_S = 600.0
"""A request that left the sampler and was never released (its caller was gone) is forgotten after so long."""


class Admission:
    """Counts requests in flight. Safe to call from any thread."""

    def __init__(self, max_active: int, max_waiting: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_active = max_active
        self.max_waiting = max_waiting
        self._limit = max_active + max_waiting
        self._clock = clock
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._reserved: dict[int, float] = {}
        self._running: set[int] = set()
        self._decoding: dict[int, float] = {}
        self._recent_s: deque[float] = deque(maxlen=32)
        self._draining = False

    def reserve(self) -> int:
        """A place for a request that is about to come. Raises `Busy`."""
        with self._lock:
            now = self._clock()
            self._reserved = {number: since for number, since in self._reserved.items() if now - since < RESERVATION_S}
            if self._draining:
                raise Busy("draining: this server finishes its work and takes no more; use another one")
            in_flight = len(self._reserved) + len(self._running)
            if in_flight >= self._limit:
                raise Busy(f"busy: {in_flight} requests are in flight, the most allowed; retry after {self._retry_s():.0f} s")
            number = next(self._numbers)
            self._reserved[number] = now
            return number

    def enter(self, reservation: int | None) -> int:
        """A request arrives, with its reservation or without one. Returns the number to `leave` with. Raises `Busy`."""
        with self._lock:
            known = reservation is not None and self._reserved.pop(reservation, None) is not None
        number = reservation if known and reservation is not None else self.reserve()
        with self._lock:
            self._reserved.pop(number, None)
            self._running.add(number)
        return number

    def leave(self, number: int, seconds: float | None = None, decoding: bool = False) -> None:
        """A request gives its place back; `seconds` it took, if that is typical of others. `decoding`: it goes on to the decoder."""
        with self._lock:
            self._running.discard(number)
            if decoding:
                self._decoding[number] = self._clock()
            if seconds is not None:
                self._recent_s.append(seconds)

    def release(self, number: int) -> None:
        """Forgets a place that will not be used, or a request whose pictures are decoded."""
        with self._lock:
            self._reserved.pop(number, None)
            self._decoding.pop(number, None)

    def drain(self, on: bool) -> None:
        """Stops (or resumes) taking new work; what is in flight goes on."""
        with self._lock:
            self._draining = on

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def in_flight(self) -> int:
        """Requests that arrived and whose pictures are not ready, and reservations."""
        with self._lock:
            now = self._clock()
            self._decoding = {number: since for number, since in self._decoding.items() if now - since < DECODING_S}
            return len(self._running) + len(self._reserved) + len(self._decoding)

    def _retry_s(self) -> float:
        typical = sum(self._recent_s) / len(self._recent_s) if self._recent_s else 1.0
        return max(1.0, typical * self._limit / self.max_active / 2)


def urgency(priority: str, waiting_since: float) -> float:
    """Sort key of waiting requests: the smallest goes first."""
    return waiting_since + HEAD_START_S[priority]
