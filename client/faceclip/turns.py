"""Which of several servers a call goes to, and whether it may go to the next. Knows time and errors; opens no connection."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from typing import Generic, TypeVar

from .errors import FaceCLIPError, ServerBusyError, ServerUnavailableError

AVOIDED_S = 5.0
"""So long after a failure others are asked before a server."""

Member = TypeVar("Member")


class Servers(Generic[Member]):
    """Servers that serve the same. Calls go round them. For any thread."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        self._failed_at: dict[Member, float] = {}
        self._starts = itertools.count(random.randrange(len(self.members)))  # processes that start together do not go together

    def in_order(self) -> list[Member]:
        """All of them, as one call should try them."""
        start, now = next(self._starts) % len(self.members), time.monotonic()
        rotated = [*self.members[start:], *self.members[:start]]
        return sorted(rotated, key=lambda member: now - self._failed_at.get(member, -AVOIDED_S) < AVOIDED_S)

    def failed(self, member: Member) -> None:
        """It could not be reached, refused because it stops, or was lost."""
        self._failed_at[member] = time.monotonic()


class Turn(Generic[Member]):
    """One attempt of a call: at the first server, and as long as the work was not begun, at the next."""

    def __init__(self, servers: Servers[Member], timeout_s: float | None) -> None:
        self._servers = servers
        self._first, *self._others = servers.in_order()
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._busy: ServerBusyError | None = None

    @property
    def member(self) -> Member:
        """Whose turn it is."""
        return self._first

    def remaining_s(self) -> float | None:
        """Seconds left, above 0; None: no limit."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 1e-3)

    def failed(self, error: FaceCLIPError, begun: bool = False) -> None:
        """Goes on to the next server. Raises `error` where there is none, or where the work may have been `begun`.

        Where one was too busy and others could not be reached, that one is told: it is worth coming back.
        """
        busy = isinstance(error, ServerBusyError)
        if busy:
            self._busy = self._busy or error  # type: ignore[assignment]
        elif isinstance(error, ServerUnavailableError):
            self._servers.failed(self._first)
        if begun or not (busy or error.safe_to_retry):
            raise error
        if not self._others:
            raise self._busy or error
        self._first = self._others.pop(0)
