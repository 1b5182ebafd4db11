"""Listens, and stops in order: no more requests, then those in flight end, then the rest."""

from __future__ import annotations

import uvicorn

from .app import make_app
from .settings import Settings


def serve(settings: Settings) -> int:
    """Until SIGINT or SIGTERM. Exit code."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    config = uvicorn.Config(
        make_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_graceful_shutdown=int(settings.drain_timeout),
    )
    uvicorn.Server(config).run()
    return 0
