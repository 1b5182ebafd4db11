"""The state machine of a request: every way through it."""

import pytest

from faceclip_serving.contract.errors import Busy, Cancelled, DeadlineExceeded, Stopping
from faceclip_serving.sampling.requests import Ended, State

from .lives import DRAWN, LIMITS, active, delivered, gone, reach, working
from .stages import decode, finish


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
        reach(lives, place, state)
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
        reach(lives, place, state)
    for _ in range(5):
        clock.now += 4.0
        assert lives.renew([place, "unknown"]) == ["unknown"]
    clock.now += 5.1
    assert lives.lost([place]) == [place] == lives.renew([place])
    delivered(lives)
    ((ended, error),) = lives.ends
    assert ended == place and isinstance(error, Cancelled)


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


def test_a_caller_who_leaves_ends_its_request_once(lives):
    place = lives.admit().place
    assert lives.leave(place) and not lives.leave(place) and not lives.leave("unknown")
    delivered(lives)
    ((ended, error),) = lives.ends
    assert ended == place and isinstance(error, Cancelled) and str(error) == "its caller is gone"
    assert lives.counts().leaving == 1


def test_work_that_comes_too_late_is_refused(lives, clock):
    place = lives.admit().place
    clock.now = LIMITS.lease_s + 0.1
    with pytest.raises(Cancelled, match="nobody holds the request's place any more"):
        lives.enter(place, str, lambda event: None)


def test_of_two_that_are_not_renewed_the_earlier_ends_first(lives, clock):
    early = lives.admit().place
    clock.now = 2.0
    late = lives.admit().place
    clock.now = 5.1  # of 5 s
    assert lives.lost([early, late]) == [early]
    clock.now = 7.1
    assert lives.lost([early, late]) == [early, late]
