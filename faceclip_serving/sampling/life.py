"""A request's life, owned in one place.

    reserved → preparing → (scheduling →) encoding → waiting → active → decoding → finishing → leaving → ended

or, where faces in the pictures are to be drawn again, … decoding → detailing → (waiting → active → decoding →) finishing …

A request gets a place before any work is done for it. `give_up` works from every state and from any thread and tells the caller, once.
The place is given back by `end`, and not before a stage has done with what it has begun for the request: what was begun cannot be
stopped, so whoever leaves early and comes again would pile it up. A place is a lease: the public model that serves the caller renews
it, so that nobody can leave and keep it. Bounded at two points: `max_active` requests share the denoiser's ticks, `max_waiting` more
may be on the way there; tenants share both, and the stages, see `fairness`. Each stage (a schedule that was never asked for, the
encoders, the decoder, the search for faces) has one request at a time, and nothing is begun for those who have left. Knows states,
places and time; nothing of pictures or of Triton.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ..contract.errors import Busy, Cancelled, DeadlineExceeded, Stopping
from ..contract.settings import most_in_flight
from .fairness import Fairness, displaced_by
from .reasons import Reasons, in_words
from .requests import Counts, Ended, Limits, Request, State
from .stages import STAGES, Stage

log = logging.getLogger(__name__)

_BEHIND = (State.DECODING, State.DETAILING, State.FINISHING)
"""Those who are drawn, and need no place any more; a few come back for their faces, and go first then."""


_CROWD = 100
"""Places from which on leases are longer, in proportion."""


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
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._stages = {state: Stage(state, lock, limits.batch_head_start_s) for state in STAGES}
        """One lock; the loop and each stage wait for what concerns them."""
        self._alive: dict[str, Request] = {}
        self._leaving: dict[str, Request] = {}
        self._fairness = Fairness(limits.batch_head_start_s)
        self._reasons = Reasons()
        self._freed_at: deque[float] = deque(maxlen=32)
        """When one less waited or was drawn, since somebody has been here all the time."""
        self._due = math.inf
        """Until then nobody's time is up, whatever comes but a new request."""
        self._active: list[Request] = []
        self._promoted_at = -1
        self._draining, self._refuses_from = False, 0.0
        self._over: Exception | None = None
        self.on_change: Callable[[Counts], None] = lambda counts: None
        """Hears in the messages' thread, soon after somebody has come, gone on or ended, how many are where."""
        self._changes = 0
        self._change_told = True
        self.messages: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        """What is to be said, in order; see `deliver`."""
        self._saying_since: float | None = None
        """Since when one of them is being said."""

    # ---------------------------------------------------------------------------------------------------------- the way in
    def admit(self, id: str = "", tenant: str = "", deadline: float | None = None) -> Request:
        """A place for a request that is about to come. Raises `Busy`, `Stopping`.

        Where all are taken, the latest request of a tenant that has more of them and is not served yet makes room.
        """
        with self._changed:
            self._sweep()
            now = self._clock()
            request = Request(uuid.uuid4().hex, id, tenant, deadline, now, now + self.limits.lease_s)
            refusal = self._refusal(tenant)
            if refusal is not None:
                self.messages.put(partial(self._on_end, request, refusal))
                try:
                    raise refusal
                finally:
                    del refusal  # else the error holds this frame, and this frame the error
            if not self.in_flight:
                self._freed_at.clear()
            self._alive[request.place] = request
            self._due = min(self._due, request.due())
            self._note_change()
            self._changed.notify_all()  # the loop begins to look after leases
            return request

    def prepare(self, place: str) -> None:
        """The preparation begins. Raises why the request has ended, where it has."""
        with self._changed:
            request = self._wanted(place, State.RESERVED)
            request.state = State.PREPARING
            self._note_change()

    def prepared(self, place: str) -> None:
        """The preparation was all that was wanted: from here on the request is its holder's to end. Raises why it has ended before."""
        with self._changed:
            self._sweep()
            self._move(self._wanted(place, State.RESERVED, State.PREPARING), State.FINISHING)
            self._note_free()

    def renew(self, places: Iterable[str]) -> list[str]:
        """The holder is still there, and be it late; the places of requests that have ended meanwhile."""
        with self._changed:
            held = list(places)
            for place in held:
                request = self._alive.get(place) or self._leaving.get(place)
                if request is not None:
                    request.held_until = self._clock() + self.limits.lease_s
            self._sweep()
            return [place for place in held if place not in self._alive]

    def lost(self, places: Iterable[str]) -> list[str]:
        """Those that have ended."""
        with self._changed:
            self._sweep()
            return [place for place in places if place not in self._alive]

    def ask_wanted(self, place: str) -> None:
        """For work that takes long, between its parts. Raises why the request has ended, where it has."""
        if self.lost([place]):
            raise self.why(place) or Cancelled("the request has ended")

    def enter(
        self,
        place: str,
        encode: Callable[[], Any],
        listener: Callable[[Any], None],
        priority: str = "interactive",
        schedule: Callable[[], Any] | None = None,
    ) -> None:
        """The request is prepared: it waits for the encoders. Raises why it has ended, where it has.

        `encode` makes the work that the loop does for it. `schedule`: what takes long and comes before that.
        """
        with self._changed:
            self._sweep()
            request = self._wanted(place, State.RESERVED, State.PREPARING)
            request.work, request.listener, request.priority = encode, listener, priority
            request.schedule = schedule
            self._move(request, State.SCHEDULING if schedule is not None else State.ENCODING)

    # ------------------------------------------------------------------------------------------- before the loop and after it
    def next_in(self, state: State) -> tuple[Request, Any] | None:
        """Waits for a request whose turn it is in one of `STAGES`, and what is to be done for it. None when there is to be an end.

        Each stage has one thread. It says what became of a request by `scheduled`, `encoded`, `decoded` or `give_up`; then it asks again.
        """
        stage = self._stages[state]
        with self._changed:
            self._free(stage)
            while self._over is None:
                self._sweep()
                found = stage.begin(self._alive.values(), self._clock())
                if found is not None:
                    return found
                stage.changed.wait()
            return None

    def scheduled(self, request: Request) -> None:
        """What took long is done; the request waits for the encoders."""
        with self._changed:
            self._free(self._stages[State.SCHEDULING])
            if request.state is State.SCHEDULING:
                request.schedule = None
                self._move(request, State.ENCODING)

    def encoded(self, request: Request, work: Any, steps: Callable[[], int] = lambda: 0) -> None:
        """The request waits for the loop. `steps`: how many of them are done."""
        with self._changed:
            self._free(self._stages[State.ENCODING])
            if request.state is State.ENCODING:
                request.work, request.steps = work, steps
                self._move(request, State.WAITING)

    def inspect(self, request: Request, look: Callable[[], Any]) -> None:
        """The pictures are decoded, and `look` seeks in them what is to be drawn again."""
        with self._changed:
            self._free(self._stages[State.DECODING])
            if request.state is State.DECODING:
                request.work = look
                self._move(request, State.DETAILING)

    def again(self, request: Request, work: Any, steps: Callable[[], int]) -> None:
        """Parts of the pictures wait for the loop, before all whose pictures are not drawn yet."""
        with self._changed:
            self._free(self._stages[State.DETAILING])
            if request.state is State.DETAILING:
                request.work, request.steps, request.drawn = work, steps, True
                self._move(request, State.WAITING)

    def inspected(self, request: Request, result: Any) -> None:
        """As `decoded`, where nothing is drawn again."""
        self._answered(State.DETAILING, request, result)

    def decoded(self, request: Request, result: Any) -> None:
        """`result` is the last thing that its listener hears. From here on the request is its holder's to end."""
        self._answered(State.DECODING, request, result)

    def described(self, request: Request, result: Any) -> None:
        """The same, of a request that wants nothing but what the encoders find."""
        self._answered(State.ENCODING, request, result)

    def _answered(self, state: State, request: Request, result: Any) -> None:
        with self._changed:
            self._free(self._stages[state])
            if request.state is state:
                request.work = None
                self._say(request, result, last=True)  # before how many are where, of which metrics are told
                if state is State.ENCODING:
                    self._note_free()
                self._move(request, State.FINISHING)

    @property
    def longest_s(self) -> float:
        """Seconds that a stage has been at the same request, or a message has been on its way, the most; 0 while nothing is going on."""
        with self._changed:
            since, now = self._saying_since, self._clock()
            saying_s = 0.0 if since is None else now - since
            return max(saying_s, *(stage.busy_s(now) for stage in self._stages.values()))

    def _move(self, request: Request, state: State) -> None:
        request.state = state
        self._note_change()
        (self._stages[state].changed if state in STAGES else self._changed).notify_all()

    def _free(self, stage: Stage) -> None:
        """A stage has done with its request; where its holder had given the place back before, it is free now."""
        request = stage.done()
        if request is not None and request.released and self._leaving.pop(request.place, None) is not None:
            request.state = State.ENDED
            self._note_change()

    def _is_worked_for(self, request: Request) -> bool:
        return any(stage.is_at(request) for stage in self._stages.values())

    # ------------------------------------------------------------------------------------------------------------ the loop
    def round(self, idle: Callable[[], None] = lambda: None) -> list[Request] | None:
        """Waits until there is work; the active requests, the oldest first. None when the loop is to end.

        It is the same list as long as nothing has changed.
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
        """The work is done; `result` waits for the decoder."""
        with self._changed:
            if request.state is State.ACTIVE:
                request.work = result
                if not request.drawn:
                    self._note_free()
                self._move(request, State.DECODING)

    # ---------------------------------------------------------------------------------------------------------- the way out
    def end(self, place: str, error: Exception | None = None) -> bool:
        """Its holder does nothing for a request any more: the place is given back, by now or as soon as the stage that is at it has done.
        Whether it had not ended before.

        `error`: why it has ended, None where all went well.
        """
        with self._changed:
            ended = self.give_up(place, error)
            request = self._leaving.get(place)
            if request is not None and self._is_worked_for(request):
                request.released = True
            elif request is not None:
                del self._leaving[place]
                request.state = State.ENDED
                self._note_change()
            return ended

    def give_up(self, place: str, error: Exception | None) -> bool:
        """Ends a request, whatever its state; whether it had not ended before. It keeps its place until `end`."""
        with self._changed:
            request = self._alive.pop(place, None)
            if request is None:
                return False
            if request.state not in _BEHIND and not request.drawn and not isinstance(error, Busy):
                self._note_free()
            request.state, request.work, request.schedule, request.steps = State.LEAVING, None, None, int
            self._leaving[place] = request
            self._note_change()
            if request.listener is not None:
                error = error or Cancelled("ended by its own caller")
                self._say(request, Ended(error), last=True)
            if error is not None:
                self._reasons.keep(place, error)
            self.messages.put(lambda: self._on_end(request, error))
            self._changed.notify_all()
            return True

    def cancel(self, id: str) -> bool:
        """Ends every request of an id, for its caller; whether there was one."""
        with self._changed:
            found = [request.place for request in self._alive.values() if request.id == id]
            ended = [self._called_off(place, Cancelled("ended by its id, as its caller wished")) for place in found]
            return True in ended

    def leave(self, place: str) -> bool:
        """Ends a request whose caller is gone; whether it had not ended before."""
        with self._changed:
            return self._called_off(place, Cancelled("its caller is gone"))

    def _called_off(self, place: str, error: Exception) -> bool:
        """Its pictures may have been told already where it is finishing: then it ends as they do."""
        request = self._alive.get(place)
        return request is not None and request.state is not State.FINISHING and self.give_up(place, error)

    def why(self, place: str) -> Exception | None:
        """Why a request has ended that went wrong a while ago; None where that is not known any more."""
        with self._changed:
            return self._reasons.of(place)

    def stop(self, error: Exception | None = None) -> None:
        """Ends everything, and the loop; nothing is admitted any more."""
        with self._changed:
            self._over = self._over or error or Stopping("the server is stopping")
            for place in [*self._alive, *self._leaving]:
                self.end(place, self._over)
            for condition in (self._changed, *(stage.changed for stage in self._stages.values())):
                condition.notify_all()

    def drain(self, on: bool, cut: bool = False, linger_s: float = 0.0) -> None:
        """Stops (or resumes) taking new work; what is in flight goes on, or is `cut`: its callers hear that the server stops.

        `linger_s`: so long it is taken still, while `draining` says otherwise.
        """
        with self._changed:
            self._draining, self._refuses_from = on, self._clock() + linger_s
            self._note_change()
            for place in [*self._alive] if cut else ():
                self._called_off(place, Stopping("the server is stopping"))

    # ------------------------------------------------------------------------------------------------------------- messages
    def deliver(self) -> None:
        """Says what is to be said, until `None` is: runs in a thread of its own, so that a slow answer delays no step."""
        while (message := self.messages.get()) is not None:
            self._saying_since = self._clock()
            try:
                message()
            except Exception:
                log.exception("a message could not be delivered")
            self._saying_since = None
            del message  # while it waits for the next one, it holds nothing of the last

    def _say(self, request: Request, event: Any, last: bool = False) -> None:
        """Puts an event into the line. Whoever cannot be told it is told why instead, and the request ends."""
        listener = request.listener
        assert listener is not None
        if last:
            request.listener = None

        def say() -> None:
            try:
                listener(event)
            except Exception as error:  # an encoding, too little memory: the caller still needs an answer
                if isinstance(event, Ended):
                    raise
                log.error("an answer could not be sent", exc_info=error)
                self.give_up(request.place, error)  # says so to whom still waits for the last event
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
            states = Counter(request.state for request in (*self._alive.values(), *self._leaving.values()))
            return Counts(states, self._draining)

    @property
    def in_flight(self) -> int:
        """All that have a place."""
        with self._changed:
            self._sweep()
            return len(self._alive) + len(self._leaving)

    # ---------------------------------------------------------------------------------------------------------- under the lock
    def _wanted(self, place: str, *states: State) -> Request:
        """The request of a place, which must be in one of these states. Raises why it is not there."""
        request = self._alive.get(place)
        if request is None or request.state not in states:
            told = "the request has ended before its work came: its caller left, or its time ran out"
            raise self.why(place) or Cancelled(told)
        return request

    def _refusal(self, tenant: str) -> Exception | None:
        """Why nobody of this tenant gets a place now; None after one was made, where it had to be."""
        if self._over is not None:
            return in_words(self._over)
        if self._draining and self._clock() >= self._refuses_from:
            return Busy("draining: this server finishes its work and takes no more; use another one", "draining")
        limits, hint = self.limits, f"retry after {self._retry_s():.0f} s"
        most = most_in_flight(limits.max_active, limits.max_waiting)
        in_flight = self.in_flight  # before who is placed is counted: asking ends those whose time is up
        placed = [request for request in self._alive.values() if request.state not in _BEHIND]
        full = len(placed) >= limits.max_active + limits.max_waiting
        # The last few are for tenants that have less than others: where it is full, another's place is theirs a moment later.
        if not full and (in_flight < most - limits.max_active or (in_flight < most and self._owed(tenant))):
            return None
        if in_flight >= most or not full:
            told = f"busy: {in_flight} requests are in flight, {len(self._leaving)} of them given up and not over yet; {hint}"
            return Busy(told)
        latest, held = displaced_by(tenant, placed)
        if latest is not None:
            told = f"busy: of {len(placed)} requests that wait or are drawn, the most allowed, {held} are this tenant's; {hint}"
            self.give_up(latest.place, Busy(told, "displaced"))
            return None
        return Busy(f"busy: {len(placed)} requests wait or are drawn, the most allowed; {hint}")

    def _owed(self, tenant: str) -> bool:
        """Whether another tenant has at least two more in flight, given up or not."""
        held = Counter(request.tenant for request in (*self._alive.values(), *self._leaving.values()))
        return max(held.values(), default=0) > held[tenant] + 1

    def _note_free(self) -> None:
        """One less waits or is drawn."""
        self._freed_at.append(self._clock())

    def _retry_s(self) -> float:
        """Seconds between the ends of recent requests: after so long a place should be free."""
        if len(self._freed_at) < 2:
            return 1.0
        return max(1.0, (self._freed_at[-1] - self._freed_at[0]) / (len(self._freed_at) - 1))

    def _sweep(self) -> None:
        """Ends whoever nobody holds any more, and whose time is up."""
        now = self._clock()
        if now <= self._due:
            return
        grace = self._grace_s
        for request in list(self._alive.values()):
            if request.state is not State.FINISHING and request.deadline is not None and now > request.deadline:
                self.give_up(request.place, DeadlineExceeded(_ran_out(request.steps())))
            elif now > request.held_until + grace:
                self.end(request.place, Cancelled("nobody holds the request's place any more: its caller or its model is gone"))
        for place in [
            place for place, request in self._leaving.items() if now > request.held_until + grace and not request.released
        ]:
            self.end(place)
        leaving = (request.held_until + grace for request in self._leaving.values() if not request.released)
        self._due = min((*(each.due(grace) for each in self._alive.values()), *leaving), default=math.inf)

    @property
    def _grace_s(self) -> float:
        """How much longer than its lease a place is kept in a crowd, where all calls take longer, renewals too."""
        return self.limits.lease_s * max(0.0, (len(self._alive) + len(self._leaving)) / _CROWD - 1)

    def _promoted(self) -> list[Request]:
        """The active requests, after those who may have become so: of the tenant that is served least, the most urgent.

        Where pictures come faster than they are decoded, fewer become active, so that these do not pile up.
        """
        if self._promoted_at != self._changes:
            self._active = self._chosen_active()
            self._promoted_at = self._changes
        return self._active

    def _chosen_active(self) -> list[Request]:
        active = [request for request in self._alive.values() if request.state is State.ACTIVE]
        waiting = [request for request in self._alive.values() if request.state is State.WAITING]
        if not waiting or len(active) >= self.limits.max_active:
            return active
        behind = sum(request.state in _BEHIND for request in self._alive.values())
        turns = self.limits.max_active - max(0, behind - self.limits.max_active)
        for request in self._fairness.next(waiting, active, turns - len(active), self._clock()):
            request.state = State.ACTIVE
            self._note_change()
            active.append(request)
        self._fairness.forget_all_but({request.tenant for request in self._alive.values()})
        return active

    def _note_change(self) -> None:
        self._changes += 1
        if self._change_told:
            self._change_told = False
            self.messages.put(self._tell_change)

    def _tell_change(self) -> None:
        self._change_told = True
        self.on_change(self.counts())


def _ran_out(steps: int) -> str:
    """`steps`: that were done."""
    if not steps:
        return "the request's timeout ran out before anything was drawn; allow more time"
    if steps == 1:
        return "the request's timeout ran out after 1 step; allow more time"
    return f"the request's timeout ran out after {steps} steps; allow more time or fewer steps"
