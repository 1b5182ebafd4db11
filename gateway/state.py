"""What the running gateway has: made once by `app`, found by every route through `gateway_of`."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from .backends.pool import Pool
from .jobs.service import Jobs
from .keys.store import KeyStore
from .keys.usage import Usage
from .settings import Settings
from .web.metrics import Metrics


@dataclass
class Gateway:
    settings: Settings
    pool: Pool
    keys: KeyStore
    usage: Usage
    jobs: Jobs
    metrics: Metrics


def gateway_of(connection: HTTPConnection) -> Gateway:
    found: Gateway = connection.app.state.gateway
    return found
