"""Triton's metrics from several threads: a second call of one of them, while the first runs, ends the server."""

import importlib
import sys
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


def test_a_metric_takes_one_call_at_a_time_whatever_the_threads(metrics):
    found = metrics.Metrics("tiny-sdxl", "faceclip")
    gauge, histogram = found.gauge("g", ""), found.histogram("h", "", (1.0,))
    counter = found.counter("c_total", "")
    with ThreadPoolExecutor(8) as threads:
        for call in [gauge.set, histogram.observe, counter.increment] * 8:
            threads.submit(call, 1.0)
    assert not Family.overlapped


def test_a_gauge_is_told_what_has_changed_alone(metrics):
    gauge = metrics.Metrics("tiny-sdxl", "faceclip").gauge("g", "")
    for value in (0, 0, 2, 2, 0, 3):
        gauge.set(value)
    assert Family.made == 1 and gauge._metric.told == [0, 2, 0, 3]


def test_stages_that_several_requests_name_at_once_are_made_once(metrics):
    stages = metrics.StageMetrics(metrics.Metrics("tiny-sdxl", "faceclip"))
    with ThreadPoolExecutor(8) as threads:
        for each in [threads.submit(stages.add, {"denoise": 1.0, "total": 2.0}) for _ in range(16)]:
            each.result()
    assert Family.made == 4 and not Family.overlapped
