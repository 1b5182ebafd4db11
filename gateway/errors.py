"""What is answered when something is wrong: OpenAI's shape, and the status of each of the client's errors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from faceclip import (
    DeadlineExceededError,
    FaceCLIPError,
    InvalidRequestError,
    ModelNotFoundError,
    RefusedError,
    ServerBusyError,
    ServerUnavailableError,
)

BUSY_RETRY_S = 5.0
"""Seconds to wait, told where a server did not say."""
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "server_error",
}
"""Status -> `type` of OpenAI's errors; others are the caller's mistakes."""
_ABOUT = re.compile(r"([a-z_]+)(?:\[\d+\])?: ")
_CALLED = {"num_images_per_prompt": "n", "mask_image": "mask"}
"""Parameters that have another name here."""


class ApiError(Exception):
    """An answer other than a success. The message names what was wrong, what was expected, and the cure."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(_writable(message))
        self.status = status
        self.code = code
        """Stable, for programs."""
        self.param = None if param is None else _writable(param)
        self.retry_after_s = retry_after_s

    def as_json(self) -> dict[str, Any]:
        type = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": type, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> Mapping[str, str]:
        headers = {} if self.retry_after_s is None else {"Retry-After": str(max(math.ceil(self.retry_after_s), 1))}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def _writable(text: str) -> str:
    """Half a character, which JSON can name and UTF-8 cannot write, as a question mark."""
    return text.encode(errors="replace").decode()


def invalid(param: str | None, message: str, code: str = "invalid_value") -> ApiError:
    """400: the request must change. The message begins with the parameter's name."""
    return ApiError(400, message if param is None else f"{param}: {message}", code=code, param=param)


def from_client(error: Exception) -> ApiError:
    """The answer for what a call of a server raised: a `FaceCLIPError`, or a `TypeError` about a parameter."""
    if isinstance(error, ModelNotFoundError):
        return ApiError(404, str(error), code="model_not_found", param="model")
    if isinstance(error, RefusedError):
        return ApiError(400, str(error), code=error.code, param=_param(error))
    if isinstance(error, InvalidRequestError | TypeError):
        return ApiError(400, _renamed(str(error)), code="invalid_value", param=_param(error))
    if isinstance(error, ServerBusyError):
        return ApiError(503, str(error), code="server_busy", retry_after_s=error.retry_after_s or BUSY_RETRY_S)
    if isinstance(error, ServerUnavailableError):
        return ApiError(503, str(error), code="server_unavailable", retry_after_s=BUSY_RETRY_S)
    if isinstance(error, DeadlineExceededError):
        return ApiError(504, str(error), code="deadline_exceeded")
    if isinstance(error, FaceCLIPError):
        return ApiError(500, str(error), code="server_error")
    return internal()


def unforeseen(error: Exception) -> ApiError:
    """The answer for what no route expected: a fault of ours, unless a server told it."""
    return from_client(error) if isinstance(error, FaceCLIPError) else internal()


def internal() -> ApiError:
    """A fault of ours."""
    return ApiError(500, "the gateway failed; its log says why, under this request's id", code="internal_error")


def _param(error: Exception) -> str | None:
    about = _ABOUT.match(_renamed(str(error)))
    return about[1] if about else None


def _renamed(message: str) -> str:
    about = _ABOUT.match(message)
    return message.replace(about[1], _CALLED[about[1]], 1) if about and about[1] in _CALLED else message
