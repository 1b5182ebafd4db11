"""Our own metrics on Triton's /metrics, all named `faceclip_…`. Triton's queue times say nothing of a model that answers later,
so an autoscaler wants arrivals, GPU-seconds and `faceclip_waiting_requests`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

import triton_python_backend_utils as pb_utils

log = logging.getLogger(__name__)

LATE_S = 0.05
"""How late a metric may be: what changes within that time is told at once."""

MOST_OBSERVED = 10_000
"""Observations that are kept for a server that takes none."""


class Metric:
    """A metric of Triton's that any thread may change without a wait: `Metrics` tells what has changed."""

    def __init__(self, metric: pb_utils.Metric, changed: Callable[[], None]) -> None:
        """`changed`: called after each change."""
        self._metric = metric
        self._changed = changed
        self._lock = threading.Lock()
        self._more = 0.0
        self._value: float | None = None
        self._told: float | None = None
        self._observed: list[float] = []

    def increment(self, value: float) -> None:
        with self._lock:
            self._more += value
        self._changed()

    def set(self, value: float) -> None:
        with self._lock:
            self._value = value
        self._changed()

    def observe(self, value: float) -> None:
        with self._lock:
            self._observed.append(value)
        self._changed()

    def tell(self) -> None:
        """Tells Triton what has changed since the last time. One thread at a time: a second call of a metric frees the shared memory in
        which the server still reads the first, and the server dies of it (2.51, segmentation fault in
        `Metric::LoadFromSharedMemory`).
        """
        with self._lock:
            more, observed, value = self._more, self._observed, self._value
            self._more, self._observed = 0.0, []
        try:
            if more:
                self._metric.increment(more)
                more = 0.0
            while observed:
                self._metric.observe(observed[0])
                del observed[0]
        except BaseException:
            with self._lock:  # for the next time
                self._more += more
                self._observed = [*observed, *self._observed][:MOST_OBSERVED]
            raise
        if value is not None and value != self._told:
            self._metric.set(value)
            self._told = value


class Metrics:
    """Makes metrics of one deployment of a variant, and keeps their families alive, which must outlive them.

    Each change is a call of the server, which keeps a thread from what it was doing. So a thread of its own makes them all.
    """

    def __init__(self, variant: str, deployment: str) -> None:
        self._labels = {"variant": variant, "deployment": deployment}
        self._families: dict[str, pb_utils.MetricFamily] = {}
        self._made: list[Metric] = []
        self._failing: set[Metric] = set()
        self._telling = threading.Lock()
        self._changed, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def tell(self) -> None:
        """Tells Triton all that has changed; returns when that is done."""
        with self._telling:
            for metric in list(self._made):
                try:
                    metric.tell()
                except Exception:
                    if metric not in self._failing:
                        self._failing.add(metric)
                        log.exception("a metric could not be told; it is tried again, and not named again before it works")
                else:
                    self._failing.discard(metric)

    def stop(self) -> None:
        """Tells what is left, and ends the thread."""
        self._over.set()
        self._changed.set()
        self._thread.join()

    def _run(self) -> None:
        over = False
        while not over:
            self._changed.wait()
            self._changed.clear()  # before it is asked whether this is over: `stop` says so first, and wakes this after
            over = self._over.wait(LATE_S)
            self.tell()

    def counter(self, name: str, text: str, **labels: str) -> Metric:
        """A number that only grows; `_total` belongs to its name."""
        return self._metric(name, pb_utils.MetricFamily.COUNTER, text, labels)

    def gauge(self, name: str, text: str, **labels: str) -> Metric:
        """A number that goes up and down."""
        return self._metric(name, pb_utils.MetricFamily.GAUGE, text, labels)

    def histogram(self, name: str, text: str, buckets: Sequence[float], **labels: str) -> Metric:
        """How often a number was at most each of some bounds."""
        return self._metric(name, pb_utils.MetricFamily.HISTOGRAM, text, labels, list(buckets))

    def _metric(self, name: str, kind: int, text: str, labels: Mapping[str, str], buckets: list[float] | None = None) -> Metric:
        if name not in self._families:
            self._families[name] = pb_utils.MetricFamily(name=f"faceclip_{name}", description=text, kind=kind)
        options = {} if buckets is None else {"buckets": buckets}
        made = Metric(self._families[name].Metric(labels={**self._labels, **labels}, **options), self._changed.set)
        self._made.append(made)
        return made


def requests_by_outcome(metrics: Metrics, *outcomes: str) -> dict[str, Metric]:
    """Counters of ended requests."""
    return {name: metrics.counter("requests_total", "ended requests by outcome", outcome=name) for name in outcomes}


BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class StageMetrics:
    """Seconds of finished requests, by stage. For any thread."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._stages: dict[str, tuple[Metric, Metric]] = {}
        self._new = threading.Lock()

    def add(self, seconds: Mapping[str, float]) -> None:
        """A request's `timings_s`."""
        for stage, value in seconds.items():
            with self._new:
                if stage not in self._stages:
                    self._stages[stage] = (
                        self._metrics.counter("stage_seconds_total", "seconds of finished requests", stage=stage),
                        self._metrics.histogram("stage_seconds", "seconds of a finished request", BUCKETS_S, stage=stage),
                    )
            total, histogram = self._stages[stage]
            total.increment(value)
            histogram.observe(value)
