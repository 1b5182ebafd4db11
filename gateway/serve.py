"""Listens, and stops in order: nothing new is begun, what is being drawn ends, then the rest."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI

from .app import make_app
from .jobs.failures import FolderInUseError, JobsError
from .jobs.kept.folder import Folder
from .keys.store import KeyStore
from .ports import refuse_port
from .settings import Settings, SettingsError, is_loopback
from .web.crowd import provide_files
from .web.log import log_requests
from .web.patience import protocol

CLOSE_S = 2
"""After `--drain-timeout`: so long whoever is still connected has to take the end of his answer."""


class _Server(uvicorn.Server):
    """Says where it listens, and from the first signal on begins nothing more."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_s: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_s = drain_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers if self.started else ():
            for each in server.sockets:
                host, port = each.getsockname()[:2]
                place = f"[{host}]" if ":" in host else host
                print(
                    f"the gateway answers at http://{place}:{port} (endpoints: /docs); Ctrl-C stops",
                    file=sys.stderr,
                    flush=True,
                )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answers and jobs have the same time to end, not one after the other."""
        draining = asyncio.ensure_future(self._app.state.gateway.jobs.drain(self._drain_s))
        await super().shutdown(sockets)
        await draining

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        gateway = getattr(self._app.state, "gateway", None)
        if gateway is not None:
            gateway.pool.draining = True
        # Not uvicorn's own, which raises the signal again at the end: a stop that was asked for is no failure.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def serve(settings: Settings) -> int:
    """Until SIGINT or SIGTERM. Exit code. Raises `SettingsError`."""
    refuse_folder(settings)
    refuse_open_door(settings)
    refuse_port(settings.host, settings.port)
    provide_files(settings.connections)
    log_requests()
    app = make_app(settings)
    server = _Server(config_of(settings, app), app, settings.drain_timeout)
    server.run()
    return 0 if server.started else 1


def config_of(settings: Settings, app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=protocol(settings.connections),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=64 * 1024,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout) + CLOSE_S,
    )


def refuse_folder(settings: Settings) -> None:
    """The data folder must be writable, nobody else's, and what is in it ours: said before anything listens. Raises `SettingsError`."""
    try:
        with closing(Folder(settings.folder)):
            KeyStore(settings.folder).close()
    except FolderInUseError as error:
        raise SettingsError(str(error)) from None
    except (OSError, ValueError, sqlite3.Error, JobsError) as error:
        cure = "give the gateway one of its own"
        raise SettingsError(f"data: expected a folder that it can write to, got {settings.data!r} ({error}); {cure}") from None


def refuse_open_door(settings: Settings) -> None:
    """Without keys only this machine may ask. Raises `SettingsError`."""
    keys = KeyStore(Path(settings.data))
    try:
        is_open = keys.is_open
    finally:
        keys.close()
    public = urlsplit(settings.public_url).hostname
    if is_open and not (is_loopback(settings.host) and (public is None or is_loopback(public))):
        where = settings.public_url or settings.host
        raise SettingsError(
            f"there is no API key, and {where} is open to others; make one: python -m gateway keys add NAME --data {settings.data}"
        )
