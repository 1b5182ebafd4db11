"""Whose turn it is to be prepared, and that nobody waits, or holds anything, who has ended."""

import gc
import threading
import time
import weakref
from functools import partial

import pytest

from faceclip_serving.contract.parameters import FILES, PARAMETERS
from faceclip_serving.models.lanes import Lanes, Task, is_heavy


class Requests:
    """Requests whose work ends when it is let."""

    def __init__(self, threads=1):
        self.order, self.given_up, self.ended = [], [], set()
        self.changed = threading.Condition()
        self.gate = threading.Semaphore(0)
        self.lanes = Lanes(threads, lambda places: self.ended & set(places), look_every_s=0.02)

    def note(self, notes, name):
        with self.changed:
            notes.append(name)
            self.changed.notify_all()

    def submit(self, name, tenant="", heavy=True, due=0.0, slow=False):
        def work(task):
            self.note(self.order, name)
            if heavy or slow:
                assert self.gate.acquire(timeout=10)

        task = Task(name, tenant, heavy, work, partial(self.note, self.given_up, name), due)
        self.lanes.submit(task)
        return task

    def until(self, condition):
        with self.changed:
            assert self.changed.wait_for(condition, 10), (self.order, self.given_up)


@pytest.fixture
def requests():
    made = Requests()
    yield made
    made.lanes.stop()
    for _ in range(20):
        made.gate.release()


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.name)
def test_whatever_brings_a_file_is_heavy_and_words_are_where_others_are_asked(parameter):
    assert is_heavy(["prompt", parameter.name], False) == (parameter in FILES)
    assert is_heavy(["prompt", parameter.name], True)


def test_who_brings_no_file_waits_behind_nobodys(requests):
    requests.submit("a")
    requests.submit("b")
    requests.until(lambda: requests.order == ["a"])
    requests.submit("words", heavy=False)
    requests.until(lambda: requests.order == ["a", "words"])


@pytest.mark.parametrize("heavy", [True, False])
def test_both_lanes_go_round_the_tenants(requests, heavy):
    submit = partial(requests.submit, heavy=heavy, slow=True)
    submit("running", "flood")
    requests.until(lambda: requests.order == ["running"])
    for name in ("flood 1", "flood 2", "flood 3"):
        submit(name, "flood")
    submit("shop 1", "shop")
    submit("shop 2", "shop")
    for _ in range(6):
        requests.gate.release()
    requests.until(lambda: len(requests.order) == 6)
    assert requests.order == ["running", "flood 1", "shop 1", "flood 2", "shop 2", "flood 3"]


@pytest.mark.parametrize("heavy", [True, False])
def test_who_has_ended_is_answered_before_its_turn_and_never_worked_for(requests, heavy):
    requests.submit("running")
    requests.until(lambda: requests.order == ["running"])
    if not heavy:  # the light lane is held up as well
        blocked = threading.Event()
        requests.lanes.submit(Task("light", "", False, lambda task: blocked.wait(10), lambda: None))
    requests.submit("gone", heavy=heavy)
    requests.submit("stays", heavy=heavy)
    with requests.changed:
        requests.ended.add("gone")
    requests.until(lambda: requests.given_up == ["gone"])
    requests.gate.release()
    if not heavy:
        blocked.set()
    requests.until(lambda: requests.order == ["running", "stays"])
    assert requests.given_up == ["gone"]


def test_who_ends_while_it_is_worked_for_is_answered_at_once_and_by_nobody_else(requests):
    """An operator's check may take a minute, a large picture seconds."""
    task = requests.submit("a")
    requests.until(lambda: requests.order == ["a"])
    requests.ended.add("a")
    requests.until(lambda: requests.given_up == ["a"])
    assert task.lost.is_set() and not task.may_answer(), "the work knows, and says nothing any more"
    requests.gate.release()
    requests.submit("b")
    requests.until(lambda: requests.order == ["a", "b"])
    time.sleep(0.1)  # some looks
    assert requests.given_up == ["a"]


def test_who_was_answered_by_the_work_is_not_answered_again(requests):
    answered = threading.Event()

    def work(task):
        assert task.may_answer()
        answered.set()
        raise MemoryError("after the answer")

    requests.lanes.submit(Task("a", "", True, work, partial(requests.note, requests.given_up, "a")))
    assert answered.wait(10)
    requests.submit("b")
    requests.until(lambda: requests.order == ["b"])
    assert not requests.given_up


def test_work_that_fails_ends_no_thread(requests):
    def fail(task):
        raise MemoryError("no room for the answer")

    for heavy in (True, False):
        requests.lanes.submit(Task("bad", "", heavy, fail, lambda: None))
        requests.submit(f"good {heavy}", heavy=heavy)
    requests.until(lambda: sorted(requests.order) == ["good False", "good True"])


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_work_that_leaves_the_thread_is_answered_and_the_thread_goes_on(requests, error):
    def leave(task):
        raise error

    for heavy in (True, False):
        requests.lanes.submit(Task("bad", "", heavy, leave, partial(requests.note, requests.given_up, f"bad {heavy}")))
        requests.submit(f"good {heavy}", heavy=heavy)
    requests.until(lambda: len(requests.order) == len(requests.given_up) == 2)
    assert sorted(requests.given_up) == ["bad False", "bad True"]


def test_a_sampler_that_does_not_answer_stops_nothing():
    def lost(places):
        raise RuntimeError("stopping")

    lanes, done = Lanes(1, lost, look_every_s=0.01), threading.Event()
    lanes.submit(Task("a", "", True, lambda task: done.set(), lambda: None))
    assert done.wait(10)
    lanes.stop()


def test_it_is_crowded_from_the_second_request_with_photographs_on(requests):
    lanes = requests.lanes
    assert not lanes.crowded
    requests.submit("first")
    requests.until(lambda: "first" in requests.order)
    requests.submit("words", heavy=False)
    requests.until(lambda: "words" in requests.order)
    assert not lanes.crowded
    requests.submit("second")  # waits
    assert lanes.crowded
    requests.gate.release()
    requests.until(lambda: "second" in requests.order)
    assert not lanes.crowded
    requests.gate.release()


def test_who_may_wait_is_prepared_after_the_others_but_not_for_ever(requests):
    requests.submit("running")
    requests.until(lambda: requests.order == ["running"])
    now = time.monotonic()
    requests.submit("batch", "flood", due=now + 1000)
    requests.submit("long waiting batch", "shop", due=now - 1)
    requests.submit("interactive 1", "flood", due=now)
    requests.submit("interactive 2", "other", due=now)
    requests.submit("later batch", "other", due=now + 2000)
    for _ in range(6):
        requests.gate.release()
    requests.until(lambda: len(requests.order) == 6)
    assert requests.order == ["running", "interactive 1", "long waiting batch", "interactive 2", "batch", "later batch"]


def test_a_batch_request_is_prepared_in_the_end_although_its_tenant_keeps_sending_others(requests):
    requests.submit("running")
    requests.until(lambda: requests.order == ["running"])
    now = time.monotonic()
    requests.submit("batch", "shop", due=now - 10 + 8)
    for i in range(12):
        requests.submit(f"interactive {i}", "shop", due=now - 10 + i)
    for _ in range(14):
        requests.gate.release()
    requests.until(lambda: len(requests.order) == 14)
    assert requests.order.index("batch") == 9, "where it would be had it come when its head start was over"


@pytest.mark.parametrize("heavy", [True, False])
def test_lanes_that_have_nothing_to_do_hold_nothing_of_what_they_did(requests, heavy):
    requests.gate.release()
    served = weakref.ref(requests.submit("served", heavy=heavy))
    requests.until(lambda: requests.order == ["served"])
    blocked = threading.Event()
    requests.lanes.submit(Task("busy", "", heavy, lambda task: blocked.wait(10), lambda: None))
    gone = weakref.ref(requests.submit("gone", heavy=heavy))
    requests.ended.add("gone")
    requests.until(lambda: requests.given_up == ["gone"])
    blocked.set()
    deadline = time.monotonic() + 10
    while (served() or gone()) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert served() is None and gone() is None
