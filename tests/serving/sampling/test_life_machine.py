"""Random lives of requests, against a model that keeps the same books by hand."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from faceclip_serving.contract.errors import Busy, Cancelled
from faceclip_serving.contract.settings import most_in_flight
from faceclip_serving.sampling.life import Lives
from faceclip_serving.sampling.requests import Ended, State
from faceclip_serving.sampling.stages import STAGES

from .lives import LIMITS, Clock, delivered, gone

BEHIND = (State.DECODING, State.DETAILING, State.FINISHING)


class Machine(RuleBasedStateMachine):
    """Random lives. Each step changes one thing; the books of the model are the sets below."""

    places = Bundle("places")

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.ends = {}
        self.heard = {}
        self.lives = Lives(LIMITS, self.on_end, self.clock)
        self.admitted = set()
        self.begun = {}

    def on_end(self, request, error):
        assert request.place not in self.ends or isinstance(error, Busy), "a request ends once"
        self.ends[request.place] = error

    @rule(target=places, tenant=st.sampled_from("abc"), deadline=st.one_of(st.none(), st.floats(0, 30)))
    def admit(self, tenant, deadline):
        self.lives.counts()  # whoever has ended by now is gone
        placed = [r for r in self.lives._alive.values() if r.state not in BEHIND]
        held = Counter(r.tenant for r in placed)
        yields = any(held[r.tenant] > held[tenant] + 1 for r in placed if r.state is not State.ACTIVE and not r.drawn)
        before = {r.place: r for r in placed}
        before_in_flight = self.lives.in_flight
        everybodys = Counter(r.tenant for r in (*self.lives._alive.values(), *self.lives._leaving.values()))
        owed = any(count > everybodys[tenant] + 1 for count in everybodys.values())
        try:
            place = self.lives.admit("id", tenant, None if deadline is None else self.clock.now + deadline).place
        except Busy:
            most = most_in_flight(LIMITS.max_active, LIMITS.max_waiting)
            kept = before_in_flight >= most - LIMITS.max_active and not owed
            behind = before_in_flight == most or (len(placed) < 4 and kept)
            assert self.lives.draining or behind or (len(placed) >= 4 and not yields)
            return "refused"
        assert not self.lives.draining and (len(placed) < 4 or yields)
        for lost in (before[place] for place in before.keys() - self.lives._alive.keys()):
            unserved = [r for r in placed if r.state is not State.ACTIVE and not r.drawn]
            assert lost in unserved and len(placed) >= 4 and held[lost.tenant] == max(held[r.tenant] for r in unserved)
        self.admitted.add(place)
        return place

    @rule(place=places)
    def prepare(self, place):
        gone(self.lives, place)

    @rule(place=places, broken=st.booleans(), priority=st.sampled_from(["interactive", "batch"]), unusual=st.booleans())
    def enter(self, place, broken, priority, unusual):
        events = self.heard.setdefault(place, [])

        def listener(event):
            if broken and not isinstance(event, Ended):
                raise MemoryError
            events.append(event)

        try:
            self.lives.enter(place, lambda: "work", listener, priority=priority, schedule=str if unusual else None)
        except Exception:  # noqa: BLE001 - whatever it has ended by
            return
        events.append("entered")

    @rule(held=st.lists(places, max_size=4))
    def renew(self, held):
        gone = self.lives.renew(held)
        assert set(held) - set(gone) <= self.lives._alive.keys()

    @rule(seconds=st.floats(0.1, 8))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule(place=places, error=st.sampled_from([None, Cancelled("x"), ValueError("x")]))
    def end(self, place, error):
        known = place in self.lives._alive
        assert self.lives.end(place, error) == known

    @rule(place=places, error=st.sampled_from([Cancelled("x"), ValueError("x")]))
    def give_up(self, place, error):
        before = self.lives.in_flight
        known = place in self.lives._alive
        assert self.lives.give_up(place, error) == known and self.lives.in_flight == before

    @rule(stage=st.sampled_from(STAGES), keep=st.booleans(), fails=st.booleans(), returns=st.booleans())
    def through(self, stage, keep, fails, returns):
        """A stage begins one request; it keeps it until it is asked again, or does it at once. `returns`: faces are sought after the
        decoder, and drawn again."""
        if stage not in self.begun:
            self.lives.counts()  # whoever has ended by now is gone
            if any(request.state is stage for request in self.lives._alive.values()):
                self.begun[stage], _ = self.lives.next_in(stage)
                assert self.begun[stage].state is stage
        if stage in self.begun and not keep:
            request = self.begun.pop(stage)
            if fails:
                self.lives.give_up(request.place, MemoryError("x"))
            elif stage is State.SCHEDULING:
                self.lives.scheduled(request)
            elif stage is State.ENCODING:
                self.lives.encoded(request, "result")
            elif stage is State.DECODING and returns and not request.drawn:
                self.lives.inspect(request, "look")
            elif stage is State.DECODING:
                self.lives.decoded(request, "result")
            elif returns:
                self.lives.again(request, "result", int)
            else:
                self.lives.inspected(request, "result")
            self.lives._free(self.lives._stages[stage])  # as it does when it asks for the next one

    @rule(finish=st.booleans())
    def work(self, finish):
        self.lives._sweep()
        for request in self.lives._promoted():
            if finish:
                self.lives.finish(request, "result")
            else:
                self.lives.tell(request, "step")

    @rule(on=st.booleans())
    def drain(self, on):
        self.lives.drain(on)

    @rule()
    def deliver(self):
        delivered(self.lives)

    @invariant()
    def bounded(self):
        states = [request.state for request in self.lives._alive.values()]
        assert states.count(State.ACTIVE) <= LIMITS.max_active and State.ENDED not in states
        behind = sum(state in BEHIND for state in states)
        drawn = sum(request.drawn and request.state not in BEHIND for request in self.lives._alive.values())
        assert len(states) - behind - drawn <= LIMITS.max_active + LIMITS.max_waiting
        assert len(states) + len(self.lives._leaving) <= most_in_flight(LIMITS.max_active, LIMITS.max_waiting)
        assert behind <= 2 * LIMITS.max_active

    def teardown(self):
        for stage in STAGES:
            self.lives._free(self.lives._stages[stage])
        delivered(self.lives)
        self.clock.now += LIMITS.lease_s + 0.1  # nobody renews
        self.lives.counts()
        delivered(self.lives)
        assert self.lives.in_flight == 0, "everything ends by itself: a drain does too"
        assert self.admitted <= self.ends.keys()
        for events in self.heard.values():
            last = [event for event in events if event == "result" or isinstance(event, Ended)]
            assert len(last) == events.count("entered") <= 1, "every caller is answered once"


Machine.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestMachine = Machine.TestCase
