"""Server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import ApiError, from_client
from .given_up import gone

KEEP_ALIVE_S = 15.0
"""After so long without an event a comment is sent, so that proxies keep the connection."""


def event(name: str, data: Mapping[str, Any], id: str | int | None = None) -> bytes:
    """One event; `id`: by which a reader resumes."""
    head = f"event: {name}\n" if id is None else f"id: {id}\nevent: {name}\n"
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


class EventStream(Response):
    """Sends what a generator yields, which is closed when the reader leaves. An error becomes an event `error`."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(headers={**(headers or {}), "Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        sending, leaving = asyncio.ensure_future(self._send(send)), asyncio.ensure_future(gone(Request(scope, receive)))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.wait((sending,))
            await self._events.aclose()

    async def _send(self, send: Send) -> None:
        async for piece in self._alive():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _alive(self) -> AsyncGenerator[bytes, None]:
        """The events, and comments where there is none for long."""
        coming: asyncio.Future[bytes] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(self._events))
                done, _ = await asyncio.wait((coming,), timeout=KEEP_ALIVE_S)
                if not done:
                    yield b": alive\n\n"
                    continue
                try:
                    piece = coming.result()
                except StopAsyncIteration:
                    return
                except Exception as error:  # noqa: BLE001 - whatever it is, the reader is told
                    answer = error if isinstance(error, ApiError) else from_client(error)
                    yield event("error", answer.as_json())
                    return
                coming = None
                yield piece
        finally:
            if coming is not None and not coming.done():
                coming.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await coming
