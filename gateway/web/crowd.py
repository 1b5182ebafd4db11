"""More connections than there may be: each is told so in an answer like every other, and closed."""

from __future__ import annotations

import resource

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import BUSY_RETRY_S, ApiError
from ..settings import SettingsError
from .door import PROBES
from .patience import CROWDED, SPARE

OWN_FILES = 128
"""Open files beside connections: databases, servers, libraries."""


class Crowd:
    """Refuses requests of connections beyond the limit, except probes, which tell the operator how it stands."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope.get("state", {}).get(CROWDED):
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        if scope["path"] in PROBES:
            await self._app(scope, receive, answer)
            return
        why = f"the gateway has {self._most} connections, and takes no more; the operator sets that by --connections"
        told = ApiError(503, why, code="connections_exceeded", retry_after_s=BUSY_RETRY_S)
        await JSONResponse(told.as_json(), told.status, headers=dict(told.headers))(scope, receive, answer)


def provide_files(most: int) -> None:
    """Lets this process have so many connections, each with a file that it sends. Raises `SettingsError` where it may not."""
    needed = 2 * (most + SPARE) + OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and needed > hard:
        most_here = max((hard - OWN_FILES) // 2 - SPARE, 0)
        cure = f"this process may open {hard} files, so raise that (ulimit -n, LimitNOFILE=), or choose fewer"
        raise SettingsError(f"connections: expected at most {most_here}, got {most}; {cure}")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
