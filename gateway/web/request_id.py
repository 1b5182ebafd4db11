"""Every request has an id, which the answer, the log and the server bear."""

from __future__ import annotations

import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST = 128
HEADER = "X-Request-Id"


class RequestId:
    """Takes the caller's `X-Request-Id` where it is 1 to 128 printable ASCII characters, else draws one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
        good = 0 < len(given) <= LONGEST and given.isprintable() and given.isascii()
        request_id = given if good else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (HEADER.lower().encode(), request_id.encode())]
            await send(message)

        await self._app(scope, receive, answer)
