"""How much may be sent, and how long that may take: for every route, before anything of it is decoded."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import ApiError


class Uploads:
    """413 for a body that is, or says that it is, larger than `most_bytes`; 408 for one that takes longer than `timeout_s`."""

    def __init__(self, app: ASGIApp, most_bytes: int, timeout_s: float) -> None:
        self._app, self._most, self._timeout_s = app, most_bytes, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if length.isascii() and length.isdigit() and int(length) > self._most:
            error = self._too_large()
            await JSONResponse(error.as_json(), error.status, headers={"Connection": "close"})(scope, receive, send)
            return
        received, whole, until = 0, False, asyncio.get_running_loop().time() + self._timeout_s

        async def limited() -> Message:
            nonlocal received, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                why = f"the body did not arrive within {self._timeout_s:g} s"
                raise ApiError(408, why, code="upload_timeout") from None
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > self._most:
                raise self._too_large()
            return message

        await self._app(scope, limited, send)

    def _too_large(self) -> ApiError:
        why = f"the body is larger than {self._most} bytes; send fewer or smaller pictures"
        return ApiError(413, why, code="body_too_large")
