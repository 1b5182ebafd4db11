"""The sampler's own metrics, on Triton's /metrics. Triton's queue times say nothing of a model that answers later."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils

from .errors import Busy, Cancelled, DeadlineExceeded
from .loop import Event, Failed, Tick

OUTCOMES: dict[type[Exception], str] = {Cancelled: "cancelled", DeadlineExceeded: "deadline", Busy: "rejected"}


class SamplingMetrics:
    """Counters and gauges of one sampler."""

    def __init__(self, variant: str) -> None:
        labels = {"variant": variant}

        def metric(name: str, kind: int, text: str, **more: str) -> pb_utils.Metric:
            if name not in families:
                families[name] = pb_utils.MetricFamily(name=f"faceclip_{name}", description=text, kind=kind)
            return families[name].Metric(labels={**labels, **more})

        families: dict[str, pb_utils.MetricFamily] = {}
        counter, gauge = pb_utils.MetricFamily.COUNTER, pb_utils.MetricFamily.GAUGE
        self._families = families  # a family must outlive its metrics
        self._active = metric("active_requests", gauge, "requests that share the denoiser's ticks")
        self._waiting = metric("waiting_requests", gauge, "admitted requests that wait for a place")
        self._ticks = metric("ticks_total", counter, "denoiser calls")
        self._rows = metric("denoiser_rows_total", counter, "rows of those calls")
        self._denoiser_s = metric("denoiser_seconds_total", counter, "seconds in those calls")
        self._own_s = metric("scheduler_seconds_total", counter, "seconds of the sampler's own work between calls")
        self._request_steps = metric("request_steps_total", counter, "requests served, summed over ticks")
        self._ended = {
            outcome: metric("requests_total", counter, "requests by outcome", outcome=outcome)
            for outcome in ("ok", "error", *OUTCOMES.values())
        }

    def tick(self, tick: Tick) -> None:
        """A denoiser call has ended."""
        self._active.set(tick.active)
        self._waiting.set(tick.waiting)
        self._ticks.increment(1)
        self._rows.increment(tick.rows)
        self._denoiser_s.increment(tick.denoiser_s)
        self._own_s.increment(tick.own_s)
        self._request_steps.increment(tick.tasks)

    def ended(self, event: Event) -> None:
        """A request has ended in the sampler."""
        kind = OUTCOMES.get(type(event.error), "error") if isinstance(event, Failed) else "ok"
        self._ended[kind].increment(1)
