"""A network that is in memory only while it is used."""

import threading

import pytest

from faceclip_serving.models.on_demand import OnDemand


class Opener:
    """Counts how often it opened a network, and how many of those are still held."""

    def __init__(self):
        self.opened, self.fails = 0, False

    def __call__(self):
        if self.fails:
            raise RuntimeError("gone")
        self.opened += 1
        return lambda arrays: {"doubled": 2 * arrays["x"]}


def test_it_is_opened_once_at_the_start_and_not_kept():
    opener = Opener()
    network = OnDemand(opener)
    assert opener.opened == 1 and not network.is_open


def test_what_cannot_be_opened_is_told_at_the_start():
    opener = Opener()
    opener.fails = True
    with pytest.raises(RuntimeError, match="gone"):
        OnDemand(opener)


def test_calls_in_a_row_share_one_opening_and_closing_frees_it():
    opener = Opener()
    network = OnDemand(opener)
    assert [network.run({"x": x})["doubled"] for x in range(3)] == [0, 2, 4]
    assert opener.opened == 2 and network.is_open
    network.close()
    assert not network.is_open
    assert network.run({"x": 5})["doubled"] == 10
    assert opener.opened == 3
    network.close()


def test_it_is_closed_when_no_call_came_for_a_while_and_opened_by_the_next(monkeypatch):
    timers = []

    class Timer(threading.Timer):
        def start(self):
            timers.append(self)

    monkeypatch.setattr(threading, "Timer", Timer)
    opener = Opener()
    network = OnDemand(opener, idle_s=7.0)
    network.run({"x": 1})
    network.run({"x": 1})
    first, second = timers
    assert {first.interval, second.interval} == {7.0} and first.finished.is_set()
    first.function(*first.args)
    assert network.is_open, "a call came after the one it was for"
    second.function(*second.args)
    assert not network.is_open
    assert network.run({"x": 2})["doubled"] == 4 and opener.opened == 3
    network.close()
    assert timers[-1].finished.is_set()


def test_a_failing_call_fails_alone_and_the_network_is_still_closed_later():
    network = OnDemand(Opener())
    with pytest.raises(KeyError):
        network.run({})
    assert network.run({"x": 3})["doubled"] == 6
    network.close()


def test_calls_of_several_threads_all_get_their_own_results():
    network, found = OnDemand(Opener(), idle_s=0.0), {}
    threads = [threading.Thread(target=lambda x=x: found.update({x: network.run({"x": x})["doubled"]})) for x in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    network.close()
    assert found == {x: 2 * x for x in range(50)}
