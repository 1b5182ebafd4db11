"""One line of log per request, JSON: never a prompt, a picture, a key, or what an address is signed with."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics

QUIET = ("/healthz", "/readyz", "/metrics")
"""Asked every few seconds: they are worth a line only where they fail."""
_log = logging.getLogger("gateway.requests")


def log_requests() -> None:
    """Lines go to stderr as they are, nothing before them, so that a line is a JSON document."""
    if not _log.handlers:
        _log.addHandler(logging.StreamHandler(sys.stderr))
        _log.setLevel(logging.INFO)
        _log.propagate = False


class RequestLog:
    def __init__(self, app: ASGIApp, figures: Metrics) -> None:
        self._app = app
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, received, sent = time.monotonic(), 0, 0, 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def answer(message: Message) -> None:
            nonlocal status, sent
            status = message.get("status", status)
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, counted, answer)
        finally:
            seconds = time.monotonic() - began
            route = _route(scope)
            self._figures.request(route, scope["method"], status, seconds)
            if scope["path"] not in QUIET or status >= 400:
                _log.info(json.dumps(_line(scope, route, status, seconds, received, sent)))


def _route(scope: Scope) -> str:
    """The route's pattern, so that what a caller invents becomes no label: `/v1/jobs/{job_id}`."""
    path = getattr(scope.get("route"), "path", "")
    return str(path) or "other"


def _line(scope: Scope, route: str, status: int, seconds: float, received: int, sent: int) -> dict[str, Any]:
    state: dict[str, Any] = scope.get("state", {})
    caller = state.get("caller")
    return {
        "event": "http",
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "id": state.get("request_id", ""),
        "method": scope["method"],
        "route": route,
        "path": scope["path"][:200],
        "status": status,
        "seconds": round(seconds, 6),
        "received": received,
        "sent": sent,
        "key": caller.key_id if caller is not None else None,
    }
