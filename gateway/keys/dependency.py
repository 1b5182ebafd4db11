"""The caller of a request, for routes: `caller: Caller = Depends(allowed("images"))`."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import HTTPConnection

from ..errors import ApiError
from ..state import gateway_of
from .caller import Caller


def allowed(scope: str) -> Callable[[HTTPConnection], Caller]:
    """A dependency that lets keys of this scope through; others get 401 or 403."""

    def dependency(connection: HTTPConnection) -> Caller:
        caller = gateway_of(connection).keys.caller(connection.headers.get("authorization"))
        if scope not in caller.scopes:
            raise ApiError(
                403, f"this key may not use '{scope}'; it may use {', '.join(sorted(caller.scopes))}", code="scope_missing"
            )
        connection.state.caller = caller
        return caller

    return dependency
