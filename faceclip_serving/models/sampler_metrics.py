"""What the sampler counts."""

from __future__ import annotations

from faceclip_serving import __version__

from ..contract.errors import BUSY, OUTCOMES, Busy, outcome
from ..contract.settings import Settings
from ..sampling.loop import Ticks
from ..sampling.requests import Counts, State
from .metrics import Metrics, requests_by_outcome


class SamplerMetrics:
    """What the step loop does, what is in flight, and what may be."""

    def __init__(self, metrics: Metrics, settings: Settings, digest: str) -> None:
        self._metrics = metrics  # keeps the families alive
        self._active = metrics.gauge("active_requests", "requests that share the denoiser's ticks")
        self._waiting = metrics.gauge("waiting_requests", "admitted requests that are not in the denoiser yet")
        text = "requests that hold a place, by state"
        self._states = {state: metrics.gauge("requests", text, state=state.value) for state in list(State)[:-1]}
        for name in ("max_active", "max_waiting", "denoiser_rows"):
            metrics.gauge(name, "setting of the sampler").set(settings[name])
        metrics.gauge("build_info", "always 1", version=__version__, digest=digest[:12]).set(1)
        self._ticks = metrics.counter("ticks_total", "denoiser calls")
        self._rows = metrics.counter("denoiser_rows_total", "rows of those calls")
        self._denoiser_s = metrics.counter("denoiser_seconds_total", "seconds in those calls")
        self._own_s = metrics.counter("scheduler_seconds_total", "seconds of the sampler's own work between calls")
        self._request_steps = metrics.counter("request_steps_total", "requests served, summed over ticks")
        self._lost_threads = metrics.counter("lost_threads_total", "threads of the sampler that an error has ended")
        self._ended = requests_by_outcome(metrics, *OUTCOMES)
        text = "requests that were turned away, by reason"
        self._refused = {reason: metrics.counter("refusals_total", text, reason=reason) for reason in BUSY}

    def ticks(self, ticks: Ticks) -> None:
        """Some denoiser calls have ended."""
        self._ticks.increment(ticks.ticks)
        self._rows.increment(ticks.rows)
        self._denoiser_s.increment(ticks.denoiser_s)
        self._own_s.increment(ticks.own_s)
        self._request_steps.increment(ticks.requests)

    def load(self, counts: Counts) -> None:
        """What there is now."""
        self._active.set(counts.active)
        self._waiting.set(counts.waiting)
        for state, gauge in self._states.items():
            gauge.set(counts.states.get(state, 0))

    def lost_thread(self) -> None:
        """A thread has ended by an error."""
        self._lost_threads.increment(1)

    def ended(self, error: Exception | None) -> None:
        """A request has ended, in whatever state."""
        self._ended[outcome(error)].increment(1)
        if isinstance(error, Busy):
            self._refused[error.reason].increment(1)
