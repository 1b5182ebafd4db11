"""The sampler's threads: each has its name and ends with the others, and one that fails is the end of everybody, said aloud."""

import threading
import time

import pytest

from faceclip_serving.sampling.life import Lives
from faceclip_serving.sampling.requests import State
from faceclip_serving.sampling.threads import Threads

from .limits import limited


def until_over(lives, done=lambda: None):
    def work():
        while not lives.over:
            time.sleep(0.001)
        done()

    return work


def test_each_work_has_a_thread_of_its_name_that_never_keeps_a_process_alive():
    lives, before = Lives(limited()), set(threading.enumerate())
    threads = Threads(lives, {"one": until_over(lives), "other": until_over(lives)})
    started = set(threading.enumerate()) - before
    assert {thread.name for thread in started} == {"one", "other", "messages"} and all(thread.daemon for thread in started)
    assert threads.alive
    threads.stop()
    assert not threads.alive and not any(thread.is_alive() for thread in started)


def test_a_stop_waits_for_what_is_in_progress_and_for_what_is_to_be_said():
    lives, order = Lives(limited(), lambda request, error: (time.sleep(0.05), order.append("said"))), []
    threads = Threads(lives, {"slow": until_over(lives, lambda: (time.sleep(0.05), order.append("done")))})
    lives.admit()
    threads.stop()
    assert sorted(order) == ["done", "said"]


def test_an_error_that_ends_a_thread_is_the_end_of_everybody_and_is_logged(caplog):
    lives, lost, begin = Lives(limited()), [], threading.Event()

    def fail():
        begin.wait(30)
        raise ValueError("no such row")

    threads = Threads(lives, {"fails": fail, "other": until_over(lives)}, lambda: lost.append(lives.over))
    place, heard = lives.admit().place, []
    lives.enter(place, "work", heard.append)
    begin.set()
    threads._threads[0].join(30)
    with pytest.raises(RuntimeError, match=r"^the sampler has stopped: ValueError: no such row$"):
        lives.admit()
    assert lives.next_in(State.ENCODING) is None
    threads.stop()
    assert lost == [False], "it is told before the callers are, who may come again at once"
    assert [str(event.error) for event in heard] == ["the sampler has stopped: ValueError: no such row"]
    (logged,) = caplog.records
    assert (logged.levelname, logged.message) == (
        "CRITICAL", "a thread of the sampler has ended: everything in flight fails",
    )  # fmt: skip
    assert logged.exc_info is not None and logged.exc_info[0] is ValueError
