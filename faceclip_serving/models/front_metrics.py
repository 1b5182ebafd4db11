"""What the public models that serve requests count: who came, how long each took, and what was delivered."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from ..contract.errors import OUTCOMES, outcome
from ..contract.kinds import Kind
from .metrics import BUCKETS_S, Metric, Metrics, StageMetrics, requests_by_outcome


class FrontMetrics:
    """For any thread."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._arrivals = metrics.counter("arrivals_total", "requests that came, whatever became of them")
        self._pictures = metrics.counter("pictures_total", "pictures that were delivered")
        self._refused = requests_by_outcome(metrics, *OUTCOMES)
        self._stages = StageMetrics(metrics)
        self._seconds: dict[tuple[Kind, str], Metric] = {}
        self._new = threading.Lock()

    def arrived(self) -> None:
        """A request has come."""
        self._arrivals.increment(1)

    def never_admitted(self, error: Exception) -> None:
        """A request has ended that the sampler never heard of, which counts all others."""
        self._refused[outcome(error)].increment(1)

    def answered(self, kind: Kind, seconds: float, details: Mapping[str, Any], failed: Exception | None) -> None:
        """A request's last answer was sent, `seconds` after it came. `details`: the finished one's, else empty."""
        self._stages.add(details.get("timings_s", {}))
        if pictures := len(details.get("seeds", ())):
            self._pictures.increment(pictures)
        self._histogram(kind, outcome(failed)).observe(seconds)

    def _histogram(self, kind: Kind, how: str) -> Metric:
        with self._new:
            if (kind, how) not in self._seconds:
                text = "seconds from a request's arrival to its last answer"
                self._seconds[kind, how] = self._metrics.histogram(
                    "request_seconds", text, BUCKETS_S, kind=kind.value, outcome=how
                )
            return self._seconds[kind, how]
