"""Holding places: renewed while the caller is there, ended when it has left, whatever else fails."""

import threading
import time
import weakref

import pytest

from faceclip_serving.contract.errors import Stopping
from faceclip_serving.contract.operations import Leave, Renew
from faceclip_serving.models.holder import NEW_S, Holder


class Sampler:
    def __init__(self):
        self.heard = []
        self.failing = False
        self.changed = threading.Condition()

    def ask(self, operation):
        with self.changed:
            self.heard.append(operation)
            self.changed.notify_all()
        if self.failing:
            raise Stopping("the server is stopping")
        return {"gone": [], "round_s": 0.0}

    def wait_for(self, condition):
        with self.changed:
            assert self.changed.wait_for(condition, 10)

    def ended(self):
        return [place for asked in self.heard if isinstance(asked, Leave) for place in asked.places]

    def renewals(self):
        return [asked.places for asked in self.heard if isinstance(asked, Renew)]


@pytest.fixture
def sampler():
    return Sampler()


@pytest.fixture
def holder(sampler):
    made = Holder(sampler.ask, renew_every_s=0.05)
    yield made
    made.stop()


def test_what_is_held_is_renewed_and_what_is_dropped_is_not(sampler, holder):
    holder.hold("a", lambda: False)
    holder.hold("b", lambda: False)
    sampler.wait_for(lambda: ["a", "b"] in sampler.renewals())
    holder.drop("a")
    sampler.wait_for(lambda: sampler.renewals()[-1] == ["b"])
    holder.drop("b")
    time.sleep(0.1)
    count = len(sampler.heard)
    time.sleep(0.2)
    assert len(sampler.heard) == count and not sampler.ended(), "nobody is asked while nothing is held"


def test_a_place_that_is_new_is_not_looked_at_whoever_else_is_there(sampler, holder):
    """A look is a call of the server beside the step that runs."""
    looks = []
    holder.hold("old", lambda: False)
    sampler.wait_for(sampler.renewals)
    began = time.monotonic()
    holder.hold("new", lambda: looks.append(time.monotonic() - began))
    sampler.wait_for(lambda: "new" in sampler.renewals()[-1])
    assert looks[0] >= NEW_S


def test_others_are_renewed_while_somebody_is_always_new(sampler, holder):
    holder.hold("old", lambda: False)
    deadline = time.monotonic() + 10
    while len(sampler.renewals()) < 3:
        holder.hold("new", lambda: False)
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert {tuple(places) for places in sampler.renewals()} == {("old",)}


def test_a_place_has_its_first_renewal_when_it_is_as_old_as_that(sampler):
    """A request that takes less costs none; a lease is longer."""
    holder, began = Holder(sampler.ask, renew_every_s=0.5), time.monotonic()
    try:
        holder.hold("a", lambda: False)
        sampler.wait_for(sampler.renewals)
        assert time.monotonic() - began >= 0.5
    finally:
        holder.stop()


def test_a_caller_who_has_left_ends_its_request_once_and_no_other(sampler, holder):
    left = threading.Event()
    holder.hold("stays", lambda: False)
    holder.hold("leaves", left.is_set)
    sampler.wait_for(lambda: ["stays", "leaves"] in sampler.renewals())
    left.set()
    sampler.wait_for(sampler.ended)
    count = len(sampler.renewals())
    sampler.wait_for(lambda: len(sampler.renewals()) > count + 1)
    assert sampler.ended() == ["leaves"]
    assert sampler.renewals()[-1] == ["stays", "leaves"], "its place is kept while something goes on for it"
    holder.drop("leaves")
    sampler.wait_for(lambda: sampler.renewals()[-1] == ["stays"])


def test_those_who_leave_together_are_ended_by_one_call(sampler, holder):
    """In a crowd one after the other would take seconds."""
    left = threading.Event()
    for number in range(50):
        holder.hold(str(number), left.is_set)
    sampler.wait_for(lambda: any(len(places) == 50 for places in sampler.renewals()))
    left.set()
    sampler.wait_for(lambda: len(sampler.ended()) == 50)
    assert sum(isinstance(asked, Leave) for asked in sampler.heard) <= 2, "a round may have begun before"


def test_a_look_ends_at_once_what_is_new_and_only_once(sampler, holder):
    holder.hold("stays", lambda: False)
    holder.hold("leaves", lambda: True)
    holder.look("stays")
    assert not sampler.ended()
    holder.look("leaves")
    assert sampler.ended() == ["leaves"]
    holder.look("leaves")
    sampler.wait_for(lambda: ["stays", "leaves"] in sampler.renewals())
    holder.look("unknown")
    assert sampler.ended() == ["leaves"]


def test_a_sampler_that_does_not_answer_is_asked_again(sampler, holder):
    sampler.failing = True
    holder.hold("a", lambda: False)
    sampler.wait_for(lambda: len(sampler.renewals()) >= 2)
    sampler.failing = False
    count = len(sampler.renewals())
    sampler.wait_for(lambda: len(sampler.renewals()) > count)


def test_a_look_that_fails_stops_nobody_from_being_held(sampler, holder):
    def broken():
        raise RuntimeError("no answer")

    holder.hold("broken", broken)
    holder.hold("fine", lambda: False)
    sampler.wait_for(lambda: any("fine" in places for places in sampler.renewals()))


def test_nobody_is_looked_at_after_a_drop(holder):
    """Triton frees a request with its last response, and a look at a freed one could end the server."""
    looking, freed = threading.Event(), threading.Event()

    def look():
        looking.set()
        time.sleep(0.1)
        assert not freed.is_set()
        return False

    holder.hold("a", look)
    assert looking.wait(10)
    holder.drop("a")
    freed.set()
    looking.clear()
    time.sleep(0.3)
    assert not looking.is_set()


def test_nothing_of_a_caller_is_kept_once_its_place_is_dropped(sampler, holder):
    class Sender:
        def is_cancelled(self):
            return False

    sender = Sender()
    kept = weakref.ref(sender)
    holder.hold("a", sender.is_cancelled)
    sampler.wait_for(lambda: ["a"] in sampler.renewals())
    holder.drop("a")
    del sender
    deadline = time.monotonic() + 5
    while kept() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert kept() is None
