"""What is told of a request's life: to its caller, to whoever asks later, and to those who count."""

import queue
import threading

import pytest

from faceclip_serving.contract.errors import Cancelled
from faceclip_serving.sampling.reasons import REASONS_KEPT
from faceclip_serving.sampling.requests import State

from .lives import active, delivered, working
from .stages import decode, encode, enter, finish


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


def test_states_are_told_by_these_names_in_metrics():
    assert [state.value for state in State] == [
        "reserved",
        "preparing",
        "scheduling",
        "encoding",
        "waiting",
        "active",
        "decoding",
        "detailing",
        "finishing",
        "leaving",
        "ended",
    ]


def test_those_that_have_ended_are_told_from_those_that_live(lives):
    alive, over = (lives.admit().place for _ in range(2))
    lives.end(over, Cancelled("its caller is gone"))
    assert lives.lost([alive, over, "never"]) == [over, "never"]


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
