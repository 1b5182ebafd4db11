"""`GET /metrics`, as Prometheus reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import generate_latest

if TYPE_CHECKING:
    from ..state import Gateway

SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300)
METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH")
router = APIRouter()


class Metrics:
    """Of one gateway."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "gateway_requests", "Requests by route and status.", ("route", "method", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "gateway_request_seconds",
            "Time to the last byte of an answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._ready = Gauge("gateway_server_ready", "1: the server is ready.", ("server",), registry=self.registry)
        self._flight = Gauge(
            "gateway_drawings_in_flight", "Drawings at a server by this gateway.", ("server",), registry=self.registry
        )
        self._jobs = Gauge("gateway_jobs", "Jobs that wait or are drawn.", ("status",), registry=self.registry)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method if method in METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self, gateway: Gateway) -> bytes:
        for backend in gateway.pool.backends:
            self._ready.labels(backend.address).set(backend.ready)
            self._flight.labels(backend.address).set(backend.in_flight)
        for status, number in gateway.jobs.runner.load.items():
            self._jobs.labels(status).set(number)
        return generate_latest(self.registry)


@router.get("/metrics", tags=["operation"], response_class=Response)
async def metrics(request: Request) -> Response:
    """Where there are keys, one for `status` is needed."""
    gateway: Gateway = request.app.state.gateway
    gateway.keys.caller_for("status", request.headers.get("authorization"))
    return Response(gateway.metrics.text(gateway), media_type=CONTENT_TYPE_LATEST)
