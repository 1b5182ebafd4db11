"""The waiting list: which job is drawn next, and how many are drawn before another.

The highest priority first. Within a priority tenants take turns, whoever was served longest ago first; within a tenant the oldest job.
In memory; the store has what it is made of.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass

PRIORITIES = ("interactive", "batch")
"""In their order; those of the server."""
REMEMBERED_TENANTS = 10_000
"""Whose last turn is known at most, of those that have no job waiting."""


@dataclass(frozen=True)
class Place:
    """A waiting job. `number`: jobs in the order of their acceptance."""

    id: str
    number: int
    priority: str
    tenant: str
    model: str | None


class Waiting:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._lines: dict[str, dict[str, list[tuple[int, str]]]] = {name: {} for name in PRIORITIES}
        self._turns: dict[tuple[str, str], int] = {}  # priority, tenant -> when it was served last
        self._turn = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._places

    def add(self, place: Place) -> None:
        """A job that was given back goes where it was: before younger ones of its tenant."""
        self._places[place.id] = place
        bisect.insort(self._lines[place.priority].setdefault(place.tenant, []), (place.number, place.id))

    def remove(self, job_id: str) -> bool:
        """Whether it was waiting."""
        place = self._places.pop(job_id, None)
        if place is None:
            return False
        lines = self._lines[place.priority]
        lines[place.tenant].remove((place.number, place.id))
        if not lines[place.tenant]:
            del lines[place.tenant]
        return True

    def take(self, allowed: Callable[[Place], bool] = lambda place: True) -> Place | None:
        """The next job, no longer waiting; None: no job that is `allowed` waits."""
        for priority, lines in self._lines.items():
            for tenant in sorted(lines, key=lambda name: self._turn_of(priority, name)):
                for _, job_id in lines[tenant]:
                    place = self._places[job_id]
                    if allowed(place):
                        self.remove(job_id)
                        self._served(priority, tenant)
                        return place
        return None

    def position(self, job_id: str) -> int | None:
        """1 for the job that is taken next; None: it does not wait. Who comes later, of a higher priority or from a tenant that waited
        longer, may still go first."""
        place = self._places.get(job_id)
        if place is None:
            return None
        ahead = 0
        for name, lines in self._lines.items():
            if name == place.priority:
                break
            ahead += sum(map(len, lines.values()))
        lines = self._lines[place.priority]
        round_ = bisect.bisect_left(lines[place.tenant], (place.number, place.id))
        own = self._turn_of(place.priority, place.tenant)
        for tenant, line in lines.items():
            first = self._turn_of(place.priority, tenant) < own
            ahead += min(len(line), round_ + 1 if first else round_)
        return ahead + 1

    def _turn_of(self, priority: str, tenant: str) -> tuple[int, tuple[int, str]]:
        """Smaller for who is served first; the older job where neither was served."""
        return self._turns.get((priority, tenant), -1), self._lines[priority][tenant][0]

    def _served(self, priority: str, tenant: str) -> None:
        self._turn += 1
        self._turns.pop((priority, tenant), None)
        self._turns[priority, tenant] = self._turn  # the dictionary is in the order of turns
        if len(self._turns) > REMEMBERED_TENANTS + len(self._places):
            del self._turns[next(key for key in self._turns if key[1] not in self._lines[key[0]])]
