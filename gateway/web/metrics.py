"""Figures of a gateway, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300)
METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH")


class Server(Protocol):
    address: str
    ready: bool
    in_flight: int


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

    def text(self, servers: Iterable[Server], jobs: Mapping[str, int]) -> bytes:
        """`jobs`: status -> how many."""
        for server in servers:
            self._ready.labels(server.address).set(server.ready)
            self._flight.labels(server.address).set(server.in_flight)
        for status, number in jobs.items():
            self._jobs.labels(status).set(number)
        return generate_latest(self.registry)
