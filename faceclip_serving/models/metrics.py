"""Our own metrics on Triton's /metrics, all named `faceclip_…`. Triton's queue times say nothing of a model that answers later,
so an autoscaler wants arrivals, GPU-seconds and `faceclip_waiting_requests`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import triton_python_backend_utils as pb_utils


class Metric:
    """A metric of Triton's that any thread may use.

    Triton's own takes one call at a time: a second one frees the shared memory in which the server still reads the first, and the
    server dies of it (2.51, segmentation fault in `Metric::LoadFromSharedMemory`).
    """

    def __init__(self, metric: pb_utils.Metric) -> None:
        self._metric = metric
        self._one_call = threading.Lock()
        self._last: float | None = None
        """What it was set to."""

    def increment(self, value: float) -> None:
        with self._one_call:
            self._metric.increment(value)

    def set(self, value: float) -> None:
        with self._one_call:
            if value != self._last:  # a call of the server, which keeps this process from what it was doing
                self._metric.set(value)
                self._last = value

    def observe(self, value: float) -> None:
        with self._one_call:
            self._metric.observe(value)


class Metrics:
    """Makes metrics of one deployment of a variant, and keeps their families alive, which must outlive them."""

    def __init__(self, variant: str, deployment: str) -> None:
        self._labels = {"variant": variant, "deployment": deployment}
        self._families: dict[str, pb_utils.MetricFamily] = {}

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
        return Metric(self._families[name].Metric(labels={**self._labels, **labels}, **options))


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
