"""Triton's metrics from several threads: a second call of one of them, while the first runs, ends the server."""

import importlib
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import pytest


class Family:
    COUNTER, GAUGE, HISTOGRAM = range(3)
    made = 0
    overlapped = False

    def __init__(self, name, description, kind):
        pass

    def Metric(self, labels, buckets=None):  # Triton's name
        Family.made += 1
        return TritonMetric()


class TritonMetric:
    def __init__(self):
        self._busy, self.total = False, 0.0
        self.told = []

    def increment(self, value):
        Family.overlapped |= self._busy
        self._busy = True
        time.sleep(0.001)  # as Triton's own does, it lets other threads run while the server answers
        self.total += value
        self.told.append(value)
        self._busy = False

    observe = set = increment


@pytest.fixture
def metrics(monkeypatch):
    stub = types.ModuleType("triton_python_backend_utils")
    stub.MetricFamily, stub.Metric = Family, TritonMetric
    monkeypatch.setitem(sys.modules, stub.__name__, stub)
    monkeypatch.delitem(sys.modules, "faceclip_serving.models.metrics", raising=False)
    Family.made, Family.overlapped = 0, False
    yield importlib.import_module("faceclip_serving.models.metrics")
    del sys.modules["faceclip_serving.models.metrics"]


@pytest.fixture
def found(metrics):
    made = metrics.Metrics("tiny-sdxl", "faceclip")
    yield made
    made.stop()


def test_a_metric_takes_one_call_at_a_time_whatever_the_threads(found):
    gauge, histogram, counter = found.gauge("g", ""), found.histogram("h", "", (1.0,)), found.counter("c_total", "")
    with ThreadPoolExecutor(8) as threads:
        for call in [lambda: gauge.set(1.0), lambda: histogram.observe(1.0), lambda: counter.increment(1.0), found.tell] * 8:
            threads.submit(call)
    found.tell()
    assert not Family.overlapped
    assert (gauge._metric.told, histogram._metric.told, counter._metric.total) == ([1], [1] * 8, 8)


def test_who_counts_waits_for_no_answer_of_the_server(found, monkeypatch):
    go_on, counted = threading.Event(), threading.Event()
    monkeypatch.setattr(TritonMetric, "increment", lambda self, value: go_on.wait(30))
    counter = found.counter("c_total", "")

    def count():
        for _ in range(3):
            counter.increment(1)
            time.sleep(0.1)  # while the one before is being told
        counted.set()

    try:
        threading.Thread(target=count, daemon=True).start()
        assert counted.wait(10)
    finally:
        go_on.set()


def test_a_change_is_told_by_itself(found):
    counter, gauge = found.counter("c_total", ""), found.gauge("g", "")
    for value in (1, 2, 3):
        counter.increment(value)
        gauge.set(value)
        deadline = time.monotonic() + 10
        while (counter._metric.total, gauge._metric.told[-1:]) != (sum(range(value + 1)), [value]):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_gauge_is_told_what_has_changed_alone_and_what_it_is_at_last(found):
    gauge = found.gauge("g", "")
    for value in (0, 0, 2, 2, 0, 3):
        gauge.set(value)
        found.tell()
    for value in (4, 5, 3):
        gauge.set(value)
    found.stop()
    assert Family.made == 1 and gauge._metric.told == [0, 2, 0, 3]


def test_a_metric_that_cannot_be_told_stops_no_other(metrics, found, monkeypatch):
    broken, fine = found.gauge("broken", ""), found.counter("fine_total", "")
    monkeypatch.setattr(broken._metric, "set", lambda value: 1 / 0)
    broken.set(1)
    fine.increment(1)
    deadline = time.monotonic() + 10
    while fine._metric.total < 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_could_not_be_told_is_told_later_and_its_failure_logged_once(found, monkeypatch, caplog):
    counter, histogram, gauge = found.counter("c_total", ""), found.histogram("h", "", (1.0,)), found.gauge("g", "")
    with monkeypatch.context() as broken:
        for name in ("increment", "observe", "set"):
            broken.setattr(TritonMetric, name, lambda self, value: 1 / 0)
        for value in (1, 2):
            counter.increment(value)
            histogram.observe(value)
            gauge.set(value)
            found.tell()
    assert caplog.text.count("could not be told") == 3
    found.tell()
    assert (counter._metric.total, histogram._metric.told, gauge._metric.told) == (3, [1, 2], [2])


def test_a_stop_ends_the_thread_whatever_it_is_at(found):
    """A stop between the end of a wait and the clearing of what woke the thread was lost."""
    changed, reached, go_on = found._changed, threading.Event(), threading.Event()

    class Slow:
        def __getattr__(self, name):
            return getattr(changed, name)

        def clear(self):
            reached.set()
            assert go_on.wait(10)
            changed.clear()

    found._changed = Slow()
    counter = found.counter("c_total", "")
    counter.increment(1)
    assert reached.wait(10)
    ended = threading.Thread(target=found.stop, daemon=True)
    ended.start()
    while not (found._over.is_set() and changed.is_set()):
        time.sleep(0.001)
    go_on.set()
    ended.join(10)
    assert not ended.is_alive() and counter._metric.total == 1


def test_stages_that_several_requests_name_at_once_are_made_once(metrics, found):
    stages = metrics.StageMetrics(found)
    with ThreadPoolExecutor(8) as threads:
        for each in [threads.submit(stages.add, {"denoise": 1.0, "total": 2.0}) for _ in range(16)]:
            each.result()
    found.tell()
    assert Family.made == 4 and not Family.overlapped
