"""What is known of a request while it has a place: where it is, whose it is, and until when it is held."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class State(Enum):
    """Where a request is. The order of the members is that of its life."""

    RESERVED = "reserved"
    PREPARING = "preparing"
    SCHEDULING = "scheduling"
    """Its schedule was never asked for before, and is looked up: seconds."""
    ENCODING = "encoding"
    WAITING = "waiting"
    ACTIVE = "active"
    DECODING = "decoding"
    DETAILING = "detailing"
    """Its pictures are decoded, and small faces are sought in them; where there are some, it waits for the loop again."""
    FINISHING = "finishing"
    """Its pictures are decoded and handed over; only its holder ends it."""
    LEAVING = "leaving"
    """It has ended, and something that was begun for it goes on."""
    ENDED = "ended"


@dataclass(frozen=True)
class Limits:
    """How much may be in flight, and how long a place is kept for whom."""

    max_active: int
    max_waiting: int
    lease_s: float
    """A place that was not renewed for so long is lost."""
    batch_head_start_s: float
    """The head start, in seconds of waiting, that others have over priority `batch`. Finite, so nothing starves."""


@dataclass(frozen=True)
class Ended:
    """What the listener of a request hears last if it did not finish."""

    error: Exception


@dataclass(eq=False)
class Request:
    """One request. Its fields are changed by `Lives` alone, under its lock; `work` belongs to whoever does it."""

    place: str
    id: str
    tenant: str
    deadline: float | None
    """Monotonic seconds."""
    since: float
    held_until: float
    """Monotonic seconds."""
    priority: str = "interactive"
    state: State = State.RESERVED
    work: Any = None
    """What is to be done for it: called while it is encoding, advanced by the loop, decoded."""
    schedule: Callable[[], Any] | None = None
    """What is called while it is scheduling."""
    drawn: bool = False
    """Whether its pictures were drawn before: what it waits for now are parts of them."""
    released: bool = False
    """Whether its holder has given the place back while a stage was at it."""
    listener: Callable[[Any], None] | None = None
    """Hears what becomes of the work: any number of events, and exactly one last one, after which it is gone."""
    steps: Callable[[], int] = lambda: 0
    """How many steps it has done, for messages."""

    def due(self, grace_s: float = 0.0) -> float:
        """From then on it ends by itself, if its holder does not renew its place. `grace_s`: how late that may be."""
        if self.deadline is None or self.state is State.FINISHING:
            return self.held_until + grace_s
        return min(self.held_until + grace_s, self.deadline)


@dataclass
class Counts:
    """What is told of all requests together."""

    states: Mapping[State, int]
    draining: bool = False
    """Whether nobody else gets a place."""

    @property
    def active(self) -> int:
        return self.states.get(State.ACTIVE, 0)

    @property
    def decoding(self) -> int:
        """Drawn, and decoded or searched for faces."""
        return self.states.get(State.DECODING, 0) + self.states.get(State.DETAILING, 0)

    @property
    def finishing(self) -> int:
        return self.states.get(State.FINISHING, 0)

    @property
    def leaving(self) -> int:
        return self.states.get(State.LEAVING, 0)

    @property
    def waiting(self) -> int:
        """Everything before `active`, again too."""
        return self.in_flight - self.active - self.decoding - self.finishing - self.leaving

    @property
    def in_flight(self) -> int:
        """All that have a place."""
        return sum(self.states.values())
