"""A request's life, owned in one place.

    reserved → preparing → waiting → active → decoding → ended

A request gets a place before any work is done for it, and `end` works from every state and from any thread: it tells the caller,
once, and gives everything back. A place is a lease: whoever prepares, follows or decodes renews it, so that nobody can leave and keep
it. While the sampler itself owes the answer, the place is its own. Bounded at two points: `max_active` requests share the
denoiser's ticks, `max_waiting` more may be on the way there. Knows states, places and time; nothing of pictures or of Triton.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..contract.errors import Busy, Cancelled, DeadlineExceeded, Stopping

log = logging.getLogger(__name__)

HEAD_START_S = {"interactive": 0.0, "batch": 30.0}
"""Priority -> the head start, in seconds of waiting, that others have over it. Finite, so nothing starves."""


class State(Enum):
    """Where a request is. The order of the members is that of its life."""

    RESERVED = "reserved"
    PREPARING = "preparing"
    WAITING = "waiting"
    ACTIVE = "active"
    DECODING = "decoding"
    ENDED = "ended"


@dataclass(frozen=True)
class Limits:
    """How much may be in flight, and how long a place is kept for whom."""

    max_active: int = 8
    max_waiting: int = 32
    lease_s: float = 5.0
    """A place that is held from another process, and was not renewed for so long, is lost."""
    unheld_s: float = 60.0
    """The same for a place in the hands of Triton's ensemble, which renews nothing: while encoders or the decoder work for it."""


@dataclass(frozen=True)
class Ended:
    """What the listener of a request hears last if it did not finish."""

    error: Exception


@dataclass(eq=False)
class Request:
    """One request. Its fields are changed by `Lives` alone, under its lock; `work` belongs to the loop."""

    place: str
    priority: str
    deadline: float | None
    """Monotonic seconds."""
    since: float
    state: State = State.RESERVED
    held_until: float | None = None
    """Monotonic seconds; None: the sampler owes the answer, so the place is kept."""
    work: Any = None
    """What the loop does for it."""
    listener: Callable[[Any], None] | None = None
    """Hears what becomes of the work: any number of events, and exactly one last one."""
    holds: bool = False
    """Whether somebody renews the place while it waits and is active: a follower."""
    steps: Callable[[], int] = lambda: 0
    """How many steps it has done, for messages."""


@dataclass
class Counts:
    """What is told of all requests together."""

    active: int = 0
    waiting: int = 0
    """Everything before `active`."""
    decoding: int = 0

    @property
    def in_flight(self) -> int:
        """All that have a place and whose pictures are not ready."""
        return self.active + self.waiting + self.decoding


class Lives:
    """Every request of a sampler. All methods may be called from any thread."""

    def __init__(
        self,
        limits: Limits,
        on_end: Callable[[Request, Exception | None], None] = lambda request, error: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_end` hears of every end, and of every refusal, in the messages' thread."""
        self.limits = limits
        self._on_end = on_end
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._alive: dict[str, Request] = {}
        self._finished_at: deque[float] = deque(maxlen=32)
        self._draining = False
        self._over: Exception | None = None
        self.messages: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        """What is to be said, in order; see `deliver`."""

    # ---------------------------------------------------------------------------------------------------------- the way in
    def admit(self, priority: str = "interactive", deadline: float | None = None) -> Request:
        """A place for a request that is about to come. Raises `Busy`, `Stopping`."""
        with self._changed:
            self._sweep()
            now = self._clock()
            request = Request(uuid.uuid4().hex, priority, deadline, now, held_until=now + self.limits.lease_s)
            refusal = self._refusal()
            if refusal is not None:
                self.messages.put(lambda: self._on_end(request, refusal))
                raise refusal
            self._alive[request.place] = request
            self._changed.notify_all()  # the loop begins to look after leases
            return request

    def prepare(self, place: str) -> bool:
        """The preparation begins; whether the request is still wanted."""
        with self._changed:
            request = self._alive.get(place)
            if request is not None and request.state is State.RESERVED:
                request.state = State.PREPARING
            return request is not None

    def renew(self, places: Iterable[str]) -> list[str]:
        """The holder is still there; the places that have ended meanwhile."""
        with self._changed:
            self._sweep()
            gone = []
            for place in places:
                request = self._alive.get(place)
                if request is None:
                    gone.append(place)
                elif request.held_until is not None:
                    request.held_until = max(request.held_until, self._clock() + self.limits.lease_s)
            return gone

    def leave(self, place: str) -> None:
        """Nobody renews the place for a while: it is in the ensemble's hands."""
        with self._changed:
            request = self._alive.get(place)
            if request is not None and request.held_until is not None:
                request.held_until = self._clock() + self.limits.unheld_s

    def enter(
        self, place: str, work: Any, listener: Callable[[Any], None], holds: bool, steps: Callable[[], int] = lambda: 0,
        priority: str = "interactive", deadline: float | None = None,
    ) -> None:  # fmt: skip
        """The work of an admitted request has come: it waits to become active.

        `holds`: whether a follower renews the place. Raises `Cancelled` where the place is lost.
        """
        with self._changed:
            self._sweep()
            request = self._alive.get(place)
            if request is None or request.state not in (State.RESERVED, State.PREPARING):
                raise Cancelled("the request has ended before its work came: its caller left, or its preparation took too long")
            request.state, request.work, request.listener, request.holds = State.WAITING, work, listener, holds
            request.priority, request.deadline, request.steps = priority, deadline, steps
            request.held_until = self._clock() + self.limits.lease_s if holds else None
            self._changed.notify_all()

    # ------------------------------------------------------------------------------------------------------------ the loop
    def round(self, idle: Callable[[], None] = lambda: None) -> list[Request] | None:
        """Waits until there is work; the active requests, the oldest first. None when the loop is to end.

        Before, whoever has ended is dropped and whoever may is promoted. `idle` is called before each wait.
        """
        with self._changed:
            while self._over is None:
                self._sweep()
                active = self._promoted()
                if active:
                    return active
                idle()
                self._changed.wait(1.0 if self._alive else None)
            return None

    def tell(self, request: Request, event: Any) -> None:
        """Something has happened to the work of a request."""
        with self._changed:
            if request.state is State.ACTIVE and request.listener is not None:
                self._say(request, event)

    def finish(self, request: Request, result: Any) -> None:
        """The work is done, `result` is the last thing its listener hears; decoding begins."""
        with self._changed:
            if request.state is not State.ACTIVE:
                return
            now = self._clock()
            request.state = State.DECODING
            request.work = None
            request.held_until = now + (self.limits.lease_s if request.holds else self.limits.unheld_s)
            self._finished_at.append(now)
            self._say(request, result, last=True)

    # ---------------------------------------------------------------------------------------------------------- the way out
    def end(self, place: str, error: Exception | None = None) -> bool:
        """Ends a request, whatever its state; `error`: why, None where all went well. Whether it was still there."""
        with self._changed:
            request = self._alive.pop(place, None)
            if request is None:
                return False
            was, request.state, request.work = request.state, State.ENDED, None
            if was in (State.WAITING, State.ACTIVE):
                error = error or Cancelled("ended by its own caller")
                self._say(request, Ended(error), last=True)
            self.messages.put(lambda: self._on_end(request, error))
            self._changed.notify_all()
            return True

    def stop(self, error: Exception | None = None) -> None:
        """Ends everything, and the loop; nothing is admitted any more."""
        with self._changed:
            self._over = self._over or error or Stopping("the server is stopping")
            for place in list(self._alive):
                self.end(place, self._over)
            self._changed.notify_all()

    def drain(self, on: bool) -> None:
        """Stops (or resumes) taking new work; what is in flight goes on."""
        with self._changed:
            self._draining = on

    # ------------------------------------------------------------------------------------------------------------- messages
    def deliver(self) -> None:
        """Says what is to be said, until `None` is: runs in a thread of its own, so that a slow answer delays no step."""
        while (message := self.messages.get()) is not None:
            try:
                message()
            except Exception:
                log.exception("a message could not be delivered")

    def _say(self, request: Request, event: Any, last: bool = False) -> None:
        """Puts an event into the line. Whoever cannot be told it is told why instead, and the request ends."""
        listener = request.listener
        assert listener is not None

        def say() -> None:
            try:
                listener(event)
            except Exception as error:  # an encoding, too little memory: the caller still needs an answer
                if isinstance(event, Ended):
                    raise
                self.end(request.place, error)  # says so to whom still waits for the last event
                if last:
                    listener(Ended(error))

        self.messages.put(say)

    # ----------------------------------------------------------------------------------------------------------------- status
    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def over(self) -> bool:
        return self._over is not None

    def counts(self) -> Counts:
        with self._changed:
            self._sweep()
            states = [request.state for request in self._alive.values()]
            active, decoding = states.count(State.ACTIVE), states.count(State.DECODING)
            return Counts(active, len(states) - active - decoding, decoding)

    @property
    def in_flight(self) -> int:
        return self.counts().in_flight

    # ---------------------------------------------------------------------------------------------------------- under the lock
    def _refusal(self) -> Exception | None:
        if self._over is not None:
            return self._over
        if self._draining:
            return Busy("draining: this server finishes its work and takes no more; use another one")
        limits = self.limits
        taken = sum(request.state is not State.DECODING for request in self._alive.values())
        if taken >= limits.max_active + limits.max_waiting:
            return Busy(f"busy: {taken} requests are in flight, the most allowed; retry after {self._retry_s():.0f} s")
        return None

    def _retry_s(self) -> float:
        """Seconds between the ends of recent requests: after so long a place should be free."""
        if len(self._finished_at) < 2:
            return 1.0
        return max(1.0, (self._finished_at[-1] - self._finished_at[0]) / (len(self._finished_at) - 1))

    def _sweep(self) -> None:
        """Ends whoever nobody holds any more, and whose time is up."""
        now = self._clock()
        for request in list(self._alive.values()):
            if request.deadline is not None and now > request.deadline:
                done = request.steps()
                self.end(
                    request.place,
                    DeadlineExceeded(f"the request's timeout ran out after {done} steps; allow more time or fewer steps"),
                )
            elif request.held_until is not None and now > request.held_until:
                self.end(request.place, Cancelled("nobody holds the request's place any more: its caller or its model is gone"))

    def _promoted(self) -> list[Request]:
        """The active requests, after those who may have become so."""
        active = [request for request in self._alive.values() if request.state is State.ACTIVE]
        waiting = [request for request in self._alive.values() if request.state is State.WAITING]
        waiting.sort(key=lambda request: urgency(request.priority, request.since))
        for request in waiting[: max(0, self.limits.max_active - len(active))]:
            request.state = State.ACTIVE
            active.append(request)
        return active


def urgency(priority: str, since: float) -> float:
    """Sort key of waiting requests: the smallest goes first."""
    return since + HEAD_START_S[priority]
