"""The state machine of a request: every way through it, against a model that keeps the same books by hand."""

import queue

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from faceclip_serving.contract.errors import Busy, Cancelled, DeadlineExceeded, Stopping
from faceclip_serving.sampling.life import Ended, Limits, Lives, State, urgency

LIMITS = Limits(max_active=2, max_waiting=2, lease_s=5.0, unheld_s=60.0)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lives(clock):
    ends = []
    made = Lives(LIMITS, lambda request, error: ends.append((request.place, error)), clock)
    made.ends = ends
    return made


def delivered(lives):
    """Says what is to be said, here and now."""
    while True:
        try:
            lives.messages.get_nowait()()
        except queue.Empty:
            return


def working(lives, heard, holds=False, place=None, **options):
    place = place or lives.admit().place
    lives.enter(place, "work", heard.append, holds, **options)
    return place


def active(lives):
    """Places of the active requests, without waiting."""
    lives._promoted()
    return [request for request in lives._alive.values() if request.state is State.ACTIVE]


def test_a_request_goes_its_whole_way_and_hears_one_end(lives):
    heard = []
    place = lives.admit().place
    assert lives.prepare(place)
    working(lives, heard, place=place)
    (request,) = active(lives)
    lives.tell(request, "step")
    lives.finish(request, "result")
    assert lives.in_flight == 1, "its pictures are decoded"
    assert lives.end(place)
    assert not lives.end(place), "once"
    delivered(lives)
    assert heard == ["step", "result"] and lives.ends == [(place, None)] and lives.in_flight == 0


@pytest.mark.parametrize("state", list(State)[:-1], ids=lambda state: state.value)
def test_end_works_from_every_state_and_gives_the_place_back(lives, state):
    heard = []
    place = lives.admit().place
    if state is not State.RESERVED:
        lives.prepare(place)
    if state in (State.WAITING, State.ACTIVE, State.DECODING):
        working(lives, heard, place=place)
    if state in (State.ACTIVE, State.DECODING):
        (request,) = active(lives)
    if state is State.DECODING:
        lives.finish(request, "result")
    assert lives._alive[place].state is state
    error = MemoryError("x")
    assert lives.end(place, error)
    delivered(lives)
    assert lives.in_flight == 0 and lives.ends == [(place, error)]
    told = {State.WAITING: [Ended(error)], State.ACTIVE: [Ended(error)], State.DECODING: ["result"]}
    assert heard == told.get(state, [])


@pytest.mark.parametrize("state", [State.RESERVED, State.PREPARING, State.WAITING, State.ACTIVE, State.DECODING])
def test_a_place_that_nobody_renews_is_lost_and_a_renewed_one_is_kept(lives, clock, state):
    place = lives.admit().place
    if state is not State.RESERVED:
        lives.prepare(place)
    if state not in (State.RESERVED, State.PREPARING):
        working(lives, [], holds=True, place=place)
    if state in (State.ACTIVE, State.DECODING):
        (request,) = active(lives)
    if state is State.DECODING:
        lives.finish(request, "result")
    for _ in range(5):
        clock.now += 4.0
        assert lives.renew([place, "unknown"]) == ["unknown"]
    clock.now += 5.1
    assert lives.renew([place]) == [place]
    delivered(lives)
    ((ended, error),) = lives.ends
    assert ended == place and isinstance(error, Cancelled)


def test_what_the_sampler_owes_needs_no_holder_and_the_ensemble_is_given_time(lives, clock):
    place = lives.admit().place
    lives.leave(place)  # to the encoders
    clock.now += 59
    assert lives.in_flight == 1
    working(lives, [], place=place)
    clock.now += 10_000
    (request,) = active(lives)
    lives.finish(request, "result")
    clock.now += 59
    assert lives.in_flight == 1
    clock.now += 2
    assert lives.in_flight == 0


def test_forty_who_left_do_not_close_the_server(clock):
    lives = Lives(Limits(8, 32), clock=clock)
    for _ in range(40):
        lives.admit()
    with pytest.raises(Busy, match="retry after"):
        lives.admit()
    clock.now += LIMITS.lease_s + 0.1
    assert lives.admit() and lives.in_flight == 1


def test_a_deadline_ends_a_request_wherever_it_is(lives, clock):
    heard = []
    working(lives, heard, deadline=3.0, steps=lambda: 7)
    prepared = lives.admit(deadline=3.0).place
    clock.now = 3.1
    assert lives.in_flight == 0 and not lives.prepare(prepared)
    delivered(lives)
    (end,) = heard
    assert isinstance(end.error, DeadlineExceeded) and "after 7 steps" in str(end.error)


def test_a_drained_server_takes_nothing_and_ends_what_it_has(lives):
    working(lives, [])
    lives.drain(True)
    with pytest.raises(Busy, match="draining"):
        lives.admit()
    assert len(active(lives)) == 1
    lives.drain(False)
    assert lives.admit()


def test_a_stop_tells_everybody(lives):
    heard = []
    working(lives, heard)
    waiting = lives.admit().place
    lives.stop()
    delivered(lives)
    assert isinstance(heard[0].error, Stopping) and lives.in_flight == 0 and not lives.prepare(waiting)
    assert lives.round() is None
    with pytest.raises(Stopping):
        lives.admit()


def test_a_last_word_that_cannot_be_said_is_replaced_by_the_reason(lives):
    heard = []

    def listener(event):
        if event == "result":
            raise MemoryError("no room for the answer")
        heard.append(event)

    place = lives.admit().place
    lives.enter(place, "work", listener, holds=False)
    (request,) = active(lives)
    lives.finish(request, "result")
    delivered(lives)
    (end,) = heard
    assert isinstance(end.error, MemoryError) and lives.in_flight == 0


def test_a_step_that_cannot_be_said_ends_the_request_once(lives):
    heard = []

    def listener(event):
        if event == "step":
            raise MemoryError("no room")
        heard.append(event)

    place = lives.admit().place
    lives.enter(place, "work", listener, holds=False)
    (request,) = active(lives)
    lives.tell(request, "step")
    delivered(lives)
    (end,) = heard
    assert isinstance(end.error, MemoryError) and not lives.end(place)


def test_batch_waits_behind_interactive_but_never_for_ever(lives, clock):
    for priority in ("batch", "interactive", "interactive"):
        lives.enter(lives.admit().place, priority, lambda event: None, holds=False, priority=priority)
    assert sorted(request.priority for request in active(lives)) == ["interactive", "interactive"]
    assert urgency("batch", since=0.0) < urgency("interactive", since=31.0)


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

    def on_end(self, request, error):
        assert request.place not in self.ends or isinstance(error, Busy), "a request ends once"
        self.ends[request.place] = error

    @rule(target=places, deadline=st.one_of(st.none(), st.floats(0, 30)))
    def admit(self, deadline):
        free = self.lives.in_flight - sum(r.state is State.DECODING for r in self.lives._alive.values()) < 4
        try:
            place = self.lives.admit(deadline=None if deadline is None else self.clock.now + deadline).place
        except Busy:
            assert not free or self.lives.draining
            return "refused"
        assert free and not self.lives.draining
        self.admitted.add(place)
        return place

    @rule(place=places)
    def prepare(self, place):
        self.lives.prepare(place)

    @rule(place=places, holds=st.booleans(), broken=st.booleans())
    def enter(self, place, holds, broken):
        events = self.heard.setdefault(place, [])

        def listener(event):
            if broken and not isinstance(event, Ended):
                raise MemoryError
            events.append(event)

        try:
            self.lives.enter(place, "work", listener, holds)
        except Cancelled:
            return
        events.append("entered")

    @rule(place=places)
    def leave(self, place):
        self.lives.leave(place)

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
        assert len(states) - states.count(State.DECODING) <= LIMITS.max_active + LIMITS.max_waiting

    def teardown(self):
        delivered(self.lives)
        self.clock.now += 1000.0  # nobody renews; what is active is finished
        for request in self.lives._promoted():
            self.lives.finish(request, "result")
        for _ in range(3):
            self.clock.now += 1000.0
            for request in self.lives._promoted():
                self.lives.finish(request, "result")
            delivered(self.lives)
            self.lives._sweep()
            delivered(self.lives)
        assert self.lives.in_flight == 0, "everything ends by itself: a drain does too"
        assert self.admitted <= self.ends.keys()
        for events in self.heard.values():
            last = [event for event in events if event == "result" or isinstance(event, Ended)]
            assert len(last) == events.count("entered") <= 1, "every caller is answered once"


Machine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase
