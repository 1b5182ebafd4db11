"""The caller of a request, for routes: `caller: ImagesCaller`. What OpenAPI says of keys follows from it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import HTTPBearer, SecurityScopes
from starlette.requests import HTTPConnection

from ..state import gateway_of
from .caller import Caller

_BEARER = HTTPBearer(
    scheme_name="key",
    description="An API key of the operator. While he has made none, the gateway answers its own machine alone, and asks for none.",
    auto_error=False,
)
"""Tells OpenAPI of the header, and judges nothing: `KeyStore` does."""


async def _known(connection: HTTPConnection, _: Annotated[object, Security(_BEARER)]) -> Caller:
    caller = gateway_of(connection).keys.caller(connection.headers.get("authorization"))
    connection.state.caller = caller
    return caller


async def _allowed(connection: HTTPConnection, scopes: SecurityScopes, _: Annotated[object, Security(_BEARER)]) -> Caller:
    """Lets keys of the scope through, within their rate; others get 401, 403 or 429."""
    gateway = gateway_of(connection)
    (scope,) = scopes.scopes
    caller = gateway.keys.caller_for(scope, connection.headers.get("authorization"))
    connection.state.caller = caller
    gateway.usage.check_rate(caller)
    return caller


AnyCaller = Annotated[Caller, Depends(_known)]
"""Whoever has a key, for what tells only of the gateway: no scope, no rate."""
ImagesCaller = Annotated[Caller, Security(_allowed, scopes=["images"])]
JobsCaller = Annotated[Caller, Security(_allowed, scopes=["jobs"])]
FacesCaller = Annotated[Caller, Security(_allowed, scopes=["faces"])]
VerifyCaller = Annotated[Caller, Security(_allowed, scopes=["verify"])]
StatusCaller = Annotated[Caller, Security(_allowed, scopes=["status"])]
