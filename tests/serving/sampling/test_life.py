"""The state machine of a request: every way through it."""

import queue
import threading

import pytest

from faceclip_serving.contract.errors import Busy, Cancelled, DeadlineExceeded, Stopping
from faceclip_serving.contract.settings import most_in_flight
from faceclip_serving.sampling.life import Lives
from faceclip_serving.sampling.reasons import REASONS_KEPT
from faceclip_serving.sampling.requests import Ended, State

from .limits import limited
from .stages import decode, encode, enter, finish

LIMITS = limited(max_active=2, max_waiting=2, lease_s=5.0)


DRAWN = (State.ACTIVE, State.DECODING, State.FINISHING)


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


def working(lives, heard, place=None, tenant="", **options):
    place = place or lives.admit(tenant=tenant).place
    enter(lives, place, heard.append, **options)
    return place


def gone(lives, place):
    """Whether the request has ended, asked as its preparation would."""
    try:
        lives.prepare(place)
    except Exception:  # noqa: BLE001 - whatever it has ended by
        return True
    return False


def active(lives):
    """Places of the active requests, without waiting."""
    lives._promoted()
    return [request for request in lives._alive.values() if request.state is State.ACTIVE]


def test_a_request_goes_its_whole_way_and_hears_one_end(lives):
    heard = []
    place = lives.admit().place
    lives.prepare(place)
    working(lives, heard, place=place)
    (request,) = active(lives)
    lives.tell(request, "step")
    finish(lives, request)
    assert lives.in_flight == 1, "its pictures are decoded"
    assert lives.end(place)
    assert not lives.end(place), "once"
    delivered(lives)
    assert heard == ["step", "result"] and lives.ends == [(place, None)] and lives.in_flight == 0


@pytest.mark.parametrize("state", list(State)[:-2], ids=lambda state: state.value)
def test_end_works_from_every_state_and_gives_the_place_back(lives, state):
    heard = []
    place = lives.admit().place
    if state is not State.RESERVED:
        lives.prepare(place)
    if state in (State.SCHEDULING, State.ENCODING):
        lives.enter(place, str, heard.append, schedule=str if state is State.SCHEDULING else None)
    if state in (State.WAITING, *DRAWN):
        working(lives, heard, place=place)
    if state in DRAWN:
        (request,) = active(lives)
    if state in DRAWN[1:]:
        lives.finish(request, "result")
    if state is State.FINISHING:
        decode(lives)
    assert lives._alive[place].state is state
    error = MemoryError("x")
    assert lives.end(place, error)
    delivered(lives)
    assert lives.in_flight == 0 and lives.ends == [(place, error)]
    told = {State.RESERVED: [], State.PREPARING: [], State.FINISHING: ["result"]}
    assert heard == told.get(state, [Ended(error)])


@pytest.mark.parametrize("state", list(State)[:-2])
def test_a_place_that_nobody_renews_is_lost_and_a_renewed_one_is_kept(lives, clock, state):
    place = lives.admit().place
    if state is not State.RESERVED:
        lives.prepare(place)
    if state in (State.SCHEDULING, State.ENCODING):
        lives.enter(place, str, [].append, schedule=str if state is State.SCHEDULING else None)
    elif state not in (State.RESERVED, State.PREPARING):
        working(lives, [], place=place)
    if state in DRAWN:
        (request,) = active(lives)
    if state in DRAWN[1:]:
        lives.finish(request, "result")
    if state is State.FINISHING:
        decode(lives)
    for _ in range(5):
        clock.now += 4.0
        assert lives.renew([place, "unknown"]) == ["unknown"]
    clock.now += 5.1
    assert lives.lost([place]) == [place] == lives.renew([place])
    delivered(lives)
    ((ended, error),) = lives.ends
    assert ended == place and isinstance(error, Cancelled)


def test_whoever_asks_later_hears_why_a_request_has_ended(lives):
    error = MemoryError("x")
    place = lives.admit().place
    lives.end(place, error)
    for ask in (lambda: lives.prepare(place), lambda: lives.enter(place, str, [].append)):
        with pytest.raises(MemoryError, match="x"):
            ask()
    fine = lives.admit().place
    lives.end(fine)
    assert repr(lives.why(place)) == repr(error) and lives.why(fine) is None and lives.why("unknown") is None


def test_reasons_are_kept_in_a_bounded_number(lives):
    places = []
    for _ in range(REASONS_KEPT + 1):
        places.append(lives.admit().place)
        lives.end(places[-1], MemoryError("x"))
    assert lives.why(places[0]) is None and lives.why(places[1]) is not None


def test_work_comes_once_and_after_its_preparation_began_no_second_one_does(lives):
    place = lives.admit().place
    lives.prepare(place)
    with pytest.raises(Cancelled):
        lives.prepare(place)
    working(lives, [], place=place)
    with pytest.raises(Cancelled):
        working(lives, [], place=place)
    assert lives.in_flight == 1


def test_a_request_is_ended_by_its_id_and_no_other_is(lives):
    heard, others = [], []
    working(lives, heard, place=lives.admit(id="mine").place)
    prepared = lives.admit(id="mine").place
    working(lives, others, place=lives.admit(id="other").place)
    assert lives.cancel("mine") and not lives.cancel("mine") and not lives.cancel("unknown")
    delivered(lives)
    (end,) = heard
    assert isinstance(end.error, Cancelled) and gone(lives, prepared) and not others and lives.counts().waiting == 1
    assert str(end.error) == "ended by its id, as its caller wished"


def test_turns_go_round_the_tenants(clock):
    lives = Lives(limited(2, 8), clock=clock)
    for tenant in "aaaab":
        working(lives, [], tenant=tenant)
        clock.now += 0.1
    served = []
    while now := active(lives):
        served += [request.tenant for request in now if request.tenant + request.place not in served]
        assert len({request.tenant for request in now}) == min(2, len({r.tenant for r in lives._alive.values()}))
        for request in now:
            finish(lives, request)
            lives.end(request.place)


def test_a_full_server_makes_room_for_a_tenant_with_less_and_turns_the_latest_of_the_greediest_away(lives, clock):
    heard = []
    for _ in range(2):
        working(lives, heard, tenant="greedy")
        clock.now += 0.1
    active(lives)
    early, late = (lives.admit(tenant="greedy").place for _ in range(2))
    with pytest.raises(Busy, match="retry after"):
        lives.admit(tenant="greedy")
    modest = lives.admit(tenant="modest").place
    with pytest.raises(Busy) as caught:
        lives.prepare(late)
    assert caught.value.reason == "displaced" and "4 are this tenant's" in str(caught.value)
    assert not gone(lives, early) and not gone(lives, modest) and len(active(lives)) == 2, "what is served goes on"
    delivered(lives)
    assert [type(error) for _, error in lives.ends] == [Busy, Busy] and not heard


def test_nobody_is_turned_away_for_a_tenant_that_would_then_have_more(lives):
    for tenant in "aabb":
        lives.admit(tenant=tenant)
    for tenant in "ab":
        with pytest.raises(Busy, match="wait or are drawn, the most allowed"):
            lives.admit(tenant=tenant)
    lives.admit(tenant="c")  # has none, the others two
    assert sorted(request.tenant for request in lives._alive.values()) in (["a", "a", "b", "c"], ["a", "b", "b", "c"])


def test_forty_who_left_do_not_close_the_server(clock):
    lives = Lives(limited(8, 32), clock=clock)
    for _ in range(40):
        lives.admit()
    with pytest.raises(Busy, match="retry after"):
        lives.admit()
    clock.now += LIMITS.lease_s + 0.1
    assert lives.admit() and lives.in_flight == 1


def test_a_deadline_ends_a_request_wherever_it_is(lives, clock):
    heard = []
    working(lives, heard, lives.admit(deadline=3.0).place, steps=lambda: 7)
    prepared = lives.admit(deadline=3.0).place
    clock.now = 3.1
    assert lives.in_flight == lives.counts().leaving == 2
    with pytest.raises(DeadlineExceeded):
        lives.prepare(prepared)
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
    assert isinstance(heard[0].error, Stopping) and lives.in_flight == 0 and gone(lives, waiting)
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
    enter(lives, place, listener, "work")
    (request,) = active(lives)
    finish(lives, request)
    delivered(lives)
    (end,) = heard
    assert isinstance(end.error, MemoryError) and lives.in_flight == lives.counts().leaving == 1


def test_a_step_that_cannot_be_said_ends_the_request_once(lives):
    heard = []

    def listener(event):
        if event == "step":
            raise MemoryError("no room")
        heard.append(event)

    place = lives.admit().place
    enter(lives, place, listener, "work")
    (request,) = active(lives)
    lives.tell(request, "step")
    delivered(lives)
    (end,) = heard
    assert isinstance(end.error, MemoryError) and not lives.end(place)


def test_batch_waits_behind_interactive(lives):
    for priority in ("batch", "interactive", "interactive"):
        enter(lives, lives.admit().place, lambda event: None, priority, priority=priority)
    assert sorted(request.priority for request in active(lives)) == ["interactive", "interactive"]


def test_batch_that_has_waited_for_its_head_start_goes_first(clock):
    lives = Lives(limited(1, 2, lease_s=1000.0, batch_head_start_s=30.0), clock=clock)
    for seconds, priority in ((0.0, "batch"), (29.0, "interactive"), (31.0, "interactive")):
        clock.now = seconds
        enter(lives, lives.admit().place, lambda event: None, priority, priority=priority)
    order = []
    while now := active(lives):
        order.append((now[0].priority, now[0].since))
        lives.end(now[0].place)
    assert order == [("interactive", 29.0), ("batch", 0.0), ("interactive", 31.0)]


# --------------------------------------------------------------------------------------------------- what was begun goes on
def test_whoever_leaves_while_something_goes_on_for_it_keeps_its_place_until_that_is_over(lives, clock):
    place = lives.admit().place
    working(lives, [], place=place)
    (request,) = active(lives)
    finish(lives, request)
    assert lives.give_up(place, Cancelled("its caller is gone")) and not lives.give_up(place, Cancelled("again"))
    for _ in range(3):
        clock.now += 4.0
        assert lives.renew([place]) == [place], "its holder knows that it has ended"
        assert lives.in_flight == lives.counts().leaving == 1
    assert not lives.end(place) and lives.in_flight == 0
    delivered(lives)
    assert [type(error) for _, error in lives.ends] == [Cancelled]


def test_a_place_whose_holder_is_gone_too_is_given_back(lives, clock):
    place = lives.admit().place
    lives.give_up(place, Cancelled("its caller is gone"))
    clock.now += LIMITS.lease_s + 0.1
    assert lives.in_flight == 0


def test_what_is_cut_hears_that_the_server_stops_and_nobody_new_comes(lives):
    heard = []
    working(lives, heard)
    prepared = lives.admit().place
    lives.drain(True, cut=True)
    delivered(lives)
    assert [type(event.error) for event in heard] == [Stopping] and lives.counts().leaving == 2
    with pytest.raises(Stopping):
        lives.prepare(prepared)
    with pytest.raises(Busy, match="draining"):
        lives.admit()


def test_a_request_whose_pictures_are_handed_over_is_its_holders_alone(lives, clock):
    """What its caller is told and what is counted is then the same, whatever happens while files are written."""
    heard = []
    place = lives.admit(id="mine", deadline=3.0).place
    working(lives, heard, place=place)
    (request,) = active(lives)
    lives.finish(request, "result")
    assert lives.counts().decoding == 1 and lives.counts().finishing == 0
    decode(lives)
    clock.now = 4.0
    assert not lives.cancel("mine") and not lives.leave(place) and lives.renew([place]) == []
    lives.drain(True, cut=True)
    assert (lives.counts().decoding, lives.counts().finishing, lives.counts().waiting) == (0, 1, 0)
    assert lives.end(place)
    delivered(lives)
    assert heard == ["result"] and lives.ends == [(place, None)]


def test_a_refusal_of_an_ended_sampler_holds_nothing_of_whom_it_refused(lives):
    lives.stop(RuntimeError("the sampler has stopped"))
    refused = []
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the sampler has stopped") as caught:
            lives.admit()
        refused.append(caught.value)
    assert refused[0] is not refused[1] and lives._over.__traceback__ is None


def test_a_caller_who_leaves_ends_its_request_once(lives):
    place = lives.admit().place
    assert lives.leave(place) and not lives.leave(place) and not lives.leave("unknown")
    delivered(lives)
    ((ended, error),) = lives.ends
    assert ended == place and isinstance(error, Cancelled) and str(error) == "its caller is gone"
    assert lives.counts().leaving == 1


def test_what_goes_on_for_the_dead_is_bounded_and_said(lives):
    """Something slow before the sampler, such as an encoder on a processor."""
    with pytest.raises(Busy, match=r"busy: .* were given up and are not over yet, the most allowed; retry after"):
        for _ in range(100):
            lives.give_up(lives.admit().place, Cancelled("its caller is gone"))
    assert lives.in_flight == most_in_flight(LIMITS.max_active, LIMITS.max_waiting) - LIMITS.max_active


def test_a_newcomer_is_let_in_although_many_are_decoded(lives):
    """Nobody has given anything up, and one tenant has all places."""
    for _ in range(2 * LIMITS.max_active):
        working(lives, [], tenant="flood")
    while request := next((each for each in lives.round() if each.state is State.ACTIVE), None):
        finish(lives, request)
        if lives.counts().finishing == 2 * LIMITS.max_active:
            break
    for _ in range(LIMITS.max_active + LIMITS.max_waiting):
        lives.admit(tenant="flood")
    assert lives.admit(tenant="modest").state is State.RESERVED
    with pytest.raises(Busy, match="requests wait or are drawn, the most allowed"):
        lives.admit(tenant="flood")


@pytest.mark.parametrize("flooders", ["a", "ab", "abcd"])
@pytest.mark.parametrize("turns", [1, 2])
def test_a_flood_delays_itself_first_however_many_flood(clock, flooders, turns):
    lives = Lives(limited(turns, 30, lease_s=1000.0), clock=clock)
    for _ in range(5):
        for tenant in flooders:
            enter(lives, lives.admit(tenant=tenant).place, lambda event: None, tenant)
    for request in active(lives):
        finish(lives, request)
        lives.end(request.place)
    clock.now += 1.0
    enter(lives, lives.admit(tenant="modest").place, lambda event: None, "modest")
    for _ in range(len(flooders) + 1):
        now = active(lives)
        if any(request.tenant == "modest" for request in now):
            return
        finish(lives, now[0])
        lives.end(now[0].place)
    raise AssertionError("it waits for more than one turn of each other tenant")


def test_changes_are_told_while_the_loop_is_busy(lives):
    told = []
    lives.on_change = told.append
    for _ in range(3):
        lives.admit()
    delivered(lives)
    assert told and told[-1].waiting == 3
    lives.stop()
    delivered(lives)
    assert told[-1].in_flight == 0


def test_every_change_is_told(lives):
    told = []
    lives.on_change = told.append

    def tells(change, **states):
        change()
        delivered(lives)
        assert {state.value: count for state, count in told.pop().states.items() if count} == states

    place = ""

    def admit():
        nonlocal place
        place = lives.admit().place

    tells(admit, reserved=1)
    tells(lambda: lives.prepare(place), preparing=1)
    tells(lambda: lives.enter(place, str, lambda event: None), encoding=1)
    tells(lambda: encode(lives), waiting=1)
    tells(lambda: active(lives), active=1)
    tells(lambda: lives.finish(lives._alive[place], "result"), decoding=1)
    tells(lambda: decode(lives), finishing=1)
    tells(lambda: lives.give_up(place, MemoryError("x")), leaving=1)
    tells(lambda: lives.end(place))
    assert told == []


def test_work_that_comes_too_late_is_refused(lives, clock):
    place = lives.admit().place
    clock.now = LIMITS.lease_s + 0.1
    with pytest.raises(Cancelled, match="nobody holds the request's place any more"):
        lives.enter(place, str, lambda event: None)


def test_states_are_told_by_these_names_in_metrics():
    assert [state.value for state in State] == [
        "reserved",
        "preparing",
        "scheduling",
        "encoding",
        "waiting",
        "active",
        "decoding",
        "finishing",
        "leaving",
        "ended",
    ]


def test_those_that_have_ended_are_told_from_those_that_live(lives):
    alive, over = (lives.admit().place for _ in range(2))
    lives.end(over, Cancelled("its caller is gone"))
    assert lives.lost([alive, over, "never"]) == [over, "never"]


def test_of_two_that_are_not_renewed_the_earlier_ends_first(lives, clock):
    early = lives.admit().place
    clock.now = 2.0
    late = lives.admit().place
    clock.now = 5.1  # of 5 s
    assert lives.lost([early, late]) == [early]
    clock.now = 7.1
    assert lives.lost([early, late]) == [early, late]


def test_nothing_is_remembered_of_tenants_that_are_gone(clock):
    lives = Lives(limited(2, 8), clock=clock)
    for tenant in "abc":
        place = lives.admit(tenant=tenant).place
        enter(lives, place, lambda event: None, tenant)
        lives.round()
        assert lives._fairness._last_turns.keys() == {tenant}
        lives.end(place)


@pytest.mark.parametrize("fails", [False, True])
def test_how_long_one_message_has_been_on_its_way_is_known(lives, clock, fails):
    """It is said by calls into the server, which may hang like any other."""
    saying, said = queue.Queue(), queue.Queue()

    def say():
        saying.put(None)
        said.get(timeout=30)
        assert not fails

    for _ in range(2):
        lives.messages.put(say)
    lives.messages.put(None)
    thread = threading.Thread(target=lives.deliver)
    thread.start()
    for _ in range(2):
        saying.get(timeout=30)
        assert lives.longest_s == 0.0, "one message, not all of them together"
        clock.now += 7.0
        assert lives.longest_s == 7.0
        said.put(None)
    thread.join(30)
    clock.now += 7.0
    assert lives.longest_s == 0.0, "there is nothing to say"


def test_the_active_are_the_same_list_until_something_changes(lives):
    working(lives, [])
    first = lives.round()
    assert lives.round() is first
    working(lives, [])
    assert lives.round() is not first
