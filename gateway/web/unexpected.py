"""What nobody foresaw: an answer like every other, with an id and headers, and the traceback in the log under that id.

The framework's own place for this lies outside of all middleware, where an answer has neither.
"""

from __future__ import annotations

import logging

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import unforeseen

log = logging.getLogger("gateway")


class Unexpected:
    """The innermost of our middleware. An answer that has begun can only be broken off."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception as error:
            log.exception("request %s failed", scope.get("state", {}).get("request_id", ""))
            if begun:
                raise
            told = unforeseen(error)
            await JSONResponse(told.as_json(), told.status, headers=dict(told.headers))(scope, receive, send)
