"""What has happened to jobs that have not ended, for those who follow them: in memory, some entries a job, one rough picture at most.

An event's id is `ATTEMPT.NUMBER`. Both only grow, over restarts too, so whoever comes back with the last id that it saw is told what
came later and nothing twice.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

EventId = tuple[float, float]
END = "end"
"""The number of a job's last event."""


@dataclass(frozen=True)
class Event:
    """`picture`: of a preview, which is encoded only where somebody wants it."""

    id: EventId
    name: str
    data: dict[str, Any] = field(default_factory=dict)
    picture: Image.Image | None = field(default=None, repr=False)


def id_text(event_id: EventId) -> str:
    attempt, number = event_id
    return f"{int(attempt)}.{END if number == float('inf') else int(number)}"


def read_id(text: str | None) -> EventId:
    """Of a `Last-Event-ID`; what is none of ours is before everything."""
    attempt, _, number = (text or "").strip().partition(".")
    if not attempt.isascii() or not attempt.isdigit() or len(attempt) > 9:
        return (-1, -1)
    if number == END:
        return (int(attempt), float("inf"))
    return (int(attempt), int(number)) if number.isascii() and number.isdigit() and len(number) <= 9 else (-1, -1)


class Trail:
    """One job's. `waiting`: it is queued, and so has a place that changes."""

    def __init__(self, attempts: int) -> None:
        self._attempt = attempts
        self._number = 0
        self._changed = asyncio.Event()
        self.events: list[Event] = []
        self.waiting = True
        self.ended = False
        self.followers = 0
        self.details: dict[str, Any] | None = None
        """The whole report of what was drawn, for those who hear the end; what is kept has no prompts."""
        self.error: dict[str, Any] | None = None
        """The whole error, in the same way."""
        self.step = self.total = 0
        self.queued()

    def queued(self) -> None:
        """It waits, at first or again."""
        self.waiting = True
        self.step = self.total = 0
        self._add("queued")

    def begun(self, attempts: int) -> None:
        """It is drawn. What the attempt before has told is over."""
        self.waiting = False
        self._attempt = attempts
        self.events.clear()

    def progress(self, step: int, total: int, picture: Image.Image | None) -> None:
        self.step, self.total = step, total
        self._add("progress", step=step, total=total)
        if picture is not None:
            self.events = [event for event in self.events if event.picture is None]
            self._add("preview", picture, step=step, total=total)

    def end(self) -> None:
        """The store has the rest."""
        self.ended = True
        self.events.clear()
        self.touch()

    @property
    def last_id(self) -> EventId:
        return (self._attempt, self._number)

    @property
    def preview(self) -> Image.Image | None:
        """The last rough picture."""
        return next((event.picture for event in reversed(self.events) if event.picture is not None), None)

    def after(self, event_id: EventId) -> list[Event]:
        return [event for event in self.events if event.id > event_id]

    def touch(self) -> None:
        """Followers look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def change(self) -> asyncio.Event:
        """Set at the next change. Taken before one looks, so that none is missed."""
        return self._changed

    def _add(self, name: str, picture: Image.Image | None = None, **data: Any) -> None:
        self._number += 1
        self.events.append(Event((self._attempt, self._number), name, data, picture))
        self.touch()
