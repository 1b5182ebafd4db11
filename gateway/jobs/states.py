"""The states of a job, who owns a job in each, and which follow one another.

    queued      the waiting list: `waiting.Waiting`
    generating  one task of the runner
    completed, failed, cancelled   nobody works on it; the sweeper takes its result away, later the job itself

A job leaves a state by one transaction that names the state it leaves (`store.Store`). So of several that would end it, one does.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """As answers name it."""

    QUEUED = "queued"
    GENERATING = "generating"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether no state follows."""
        return not FOLLOWING[self]


FOLLOWING: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.GENERATING, Status.FAILED, Status.CANCELLED}),
    Status.GENERATING: frozenset({Status.QUEUED, Status.COMPLETED, Status.FAILED, Status.CANCELLED}),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}
"""State -> what may follow. Back to `queued`: the server was lost, or the gateway was stopped."""


def before(status: Status) -> tuple[Status, ...]:
    """The states that `status` may follow."""
    return tuple(earlier for earlier, later in FOLLOWING.items() if status in later)
