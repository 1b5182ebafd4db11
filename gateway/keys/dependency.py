"""The caller of a request, for routes: `caller: ImagesCaller`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from ..state import gateway_of
from .caller import Caller


def allowed(scope: str) -> Callable[[HTTPConnection], Awaitable[Caller]]:
    """Lets keys of this scope through, within their rate; others get 401, 403 or 429."""

    async def dependency(connection: HTTPConnection) -> Caller:
        gateway = gateway_of(connection)
        caller = gateway.keys.caller_for(scope, connection.headers.get("authorization"))
        connection.state.caller = caller
        gateway.usage.check_rate(caller)
        return caller

    return dependency


async def _known(connection: HTTPConnection) -> Caller:
    caller = gateway_of(connection).keys.caller(connection.headers.get("authorization"))
    connection.state.caller = caller
    return caller


AnyCaller = Annotated[Caller, Depends(_known)]
"""Whoever has a key, for what tells only of the gateway: no scope, no rate."""
ImagesCaller = Annotated[Caller, Depends(allowed("images"))]
JobsCaller = Annotated[Caller, Depends(allowed("jobs"))]
FacesCaller = Annotated[Caller, Depends(allowed("faces"))]
VerifyCaller = Annotated[Caller, Depends(allowed("verify"))]
StatusCaller = Annotated[Caller, Depends(allowed("status"))]
