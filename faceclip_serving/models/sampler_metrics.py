"""What the sampler counts."""

from __future__ import annotations

import time
from collections.abc import Mapping

from faceclip_serving import __version__

from ..contract.errors import BUSY, OUTCOMES, Busy, outcome
from ..contract.names import COMPONENTS, DENOISER, ENCODERS
from ..contract.placements import Placement
from ..contract.settings import Settings
from ..contract.tensors import Array
from ..sampling.loop import Ticks
from ..sampling.networks import Networks, Run
from ..sampling.requests import Counts, State
from .metrics import Metrics, requests_by_outcome


class SamplerMetrics:
    """What the step loop does, what is in flight, and what may be."""

    def __init__(self, metrics: Metrics, settings: Settings, digest: str, placement: Placement) -> None:
        self._metrics = metrics  # keeps the families alive
        self._active = metrics.gauge("active_requests", "requests that share the denoiser's ticks")
        self._waiting = metrics.gauge("waiting_requests", "admitted requests that are not in the denoiser yet")
        text = "requests that hold a place, by state"
        self._states = {state: metrics.gauge("requests", text, state=state.value) for state in list(State)[:-1]}
        self._draining = metrics.gauge("draining", "1 while the sampler takes no new work, else 0")
        for name in ("max_active", "max_waiting", "denoiser_rows"):
            metrics.gauge(name, "setting of the sampler").set(settings[name])
        metrics.gauge("build_info", "always 1", version=__version__, digest=digest[:12]).set(1)
        self._ticks = metrics.counter("ticks_total", "denoiser calls")
        self._rows = metrics.counter("denoiser_rows_total", "rows of those calls")
        self._denoiser_s = metrics.counter("denoiser_seconds_total", "seconds in those calls")
        self._own_s = metrics.counter("scheduler_seconds_total", "seconds of the sampler's own work between calls")
        self._request_steps = metrics.counter("request_steps_total", "requests served, summed over ticks")
        self._lost_threads = metrics.counter("lost_threads_total", "threads of the sampler that an error has ended")
        text = "seconds of the networks' calls on the denoiser's device"
        kinds = {name: (each.stands_for or each).runtime.instance_kind for name, each in placement.components.items()}
        self._gpu_s = {
            name: metrics.counter("gpu_seconds_total", text, component=name)
            for name in COMPONENTS
            if kinds[name] == kinds[DENOISER]
        }
        caches = {name: name.removesuffix("_encoder") for name in ENCODERS}
        text = "rows whose encoding was remembered"
        self._hits = {name: metrics.counter("cache_hits_total", text, cache=cache) for name, cache in caches.items()}
        text = "rows that had to be encoded, and were looked for"
        self._misses = {name: metrics.counter("cache_misses_total", text, cache=cache) for name, cache in caches.items()}
        self._ended = requests_by_outcome(metrics, *OUTCOMES)
        text = "requests that were turned away, by reason"
        self._refused = {reason: metrics.counter("refusals_total", text, reason=reason) for reason in BUSY}

    def ticks(self, ticks: Ticks) -> None:
        """Some denoiser calls have ended."""
        self._ticks.increment(ticks.ticks)
        self._rows.increment(ticks.rows)
        self._denoiser_s.increment(ticks.denoiser_s)
        self._gpu_s[DENOISER].increment(ticks.denoiser_s)
        self._own_s.increment(ticks.own_s)
        self._request_steps.increment(ticks.requests)

    def load(self, counts: Counts) -> None:
        """What there is now."""
        self._active.set(counts.active)
        self._waiting.set(counts.waiting)
        for state, gauge in self._states.items():
            gauge.set(counts.states.get(state, 0))
        self._draining.set(float(counts.draining))

    def counted(self, networks: Networks) -> Networks:
        """The same, whose seconds are counted, failed calls' too; the denoiser's are those of `ticks`."""
        timed = {name: self._timed(name, run) for name, run in networks.items() if name in self._gpu_s and name != DENOISER}
        return {**networks, **timed}

    def _timed(self, component: str, run: Run) -> Run:
        def timed(arrays: Mapping[str, Array]) -> dict[str, Array]:
            started = time.monotonic()
            try:
                return run(arrays)
            finally:
                self._gpu_s[component].increment(time.monotonic() - started)

        return timed

    def looked_up(self, encoder: str, hits: int, misses: int) -> None:
        """Rows for an encoder were looked for in its memory."""
        for counter, rows in ((self._hits[encoder], hits), (self._misses[encoder], misses)):
            if rows:
                counter.increment(rows)

    def lost_thread(self) -> None:
        """A thread has ended by an error."""
        self._lost_threads.increment(1)

    def ended(self, error: Exception | None) -> None:
        """A request has ended, in whatever state."""
        self._ended[outcome(error)].increment(1)
        if isinstance(error, Busy):
            self._refused[error.reason].increment(1)
