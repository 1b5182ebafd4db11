"""What the sampler counts."""

from __future__ import annotations

from ..contract.errors import OUTCOMES, outcome
from ..sampling.loop import Ticks
from .metrics import Metrics, requests_by_outcome


class SamplerMetrics:
    """What the step loop does."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics  # keeps the families alive
        self._active = metrics.gauge("active_requests", "requests that share the denoiser's ticks")
        self._waiting = metrics.gauge("waiting_requests", "admitted requests that wait for a place")
        self._ticks = metrics.counter("ticks_total", "denoiser calls")
        self._rows = metrics.counter("denoiser_rows_total", "rows of those calls")
        self._denoiser_s = metrics.counter("denoiser_seconds_total", "seconds in those calls")
        self._own_s = metrics.counter("scheduler_seconds_total", "seconds of the sampler's own work between calls")
        self._request_steps = metrics.counter("request_steps_total", "requests served, summed over ticks")
        self._ended = requests_by_outcome(metrics, *OUTCOMES)

    def ticks(self, ticks: Ticks) -> None:
        """Some denoiser calls have ended."""
        self._ticks.increment(ticks.ticks)
        self._rows.increment(ticks.rows)
        self._denoiser_s.increment(ticks.denoiser_s)
        self._own_s.increment(ticks.own_s)
        self._request_steps.increment(ticks.requests)

    def load(self, active: int, waiting: int) -> None:
        """How many requests there are now."""
        self._active.set(active)
        self._waiting.set(waiting)

    def ended(self, error: Exception | None) -> None:
        """A request has ended, in whatever state."""
        self._ended[outcome(error)].increment(1)
