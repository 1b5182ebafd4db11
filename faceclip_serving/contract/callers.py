"""Who calls a model. Anybody may ask the public ones. Inner ones take calls of this server's own models alone, since whoever could call
them by hand would pass by every check; what steers the server takes an operator.

A caller shows who it is by a request parameter, which equals a variable of the models' processes. Triton hands the parameters of a
request on to the steps of an ensemble (2.51), so one secret covers all of them.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from enum import Enum
from typing import Any

from .errors import InvalidRequest

SECRET, OPERATOR_KEY = "faceclip_secret", "faceclip_operator_key"
"""Request parameters."""
SECRET_VARIABLE, OPERATOR_KEY_VARIABLE = "FACECLIP_SECRET", "FACECLIP_OPERATOR_KEY"
"""Environment variables. `python -m server run` sets both: the first anew at each start."""

TENANT_HEADER = "x-faceclip-tenant"
"""Of a call over gRPC, and the request parameter that tritonserver makes of it: whom a proxy says that the request is for. It goes before
the tensor `tenant`, which is the caller's own word."""
FACE_HEADER = "x-faceclip-face"
"""Of a call: equal for equal faces, by which a proxy may send them to the same server. No server reads it."""


class Caller(Enum):
    PUBLIC = "public"
    OPERATOR = "operator"
    OWN = "own"
    """A model of this very server."""


def caller(parameters: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Caller:
    """Who sent a request with these parameters."""
    for name, variable, who in ((SECRET, SECRET_VARIABLE, Caller.OWN), (OPERATOR_KEY, OPERATOR_KEY_VARIABLE, Caller.OPERATOR)):
        told, wanted = parameters.get(name), environment.get(variable)
        if wanted and isinstance(told, str) and hmac.compare_digest(told.encode(errors="replace"), os.fsencode(wanted)):
            return who
    return Caller.PUBLIC


def check_own(model: str, who: Caller) -> None:
    """Raises `InvalidRequest` unless an own model calls the inner model `model`."""
    if who is not Caller.OWN:
        raise InvalidRequest(
            f"{model}: only models of this server may call this one; call its public model, 'faceclip' or 'faceclip_stream'"
        )


def own_secret(environment: Mapping[str, str] = os.environ) -> str:
    """What this server's models show each other. Raises `RuntimeError` where the server was started without one."""
    secret = environment.get(SECRET_VARIABLE, "")
    if len(secret) < 16:
        raise RuntimeError(
            f"{SECRET_VARIABLE}: expected at least 16 characters by which the models of this server know each other, got {len(secret)};"
            " start the server by `python -m server run`, which draws one, or set it to a random text"
        )
    return secret
