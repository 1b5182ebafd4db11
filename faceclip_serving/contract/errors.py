"""The errors that are part of the service: each is an answer to a caller, not a fault of the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class UserError(Exception):
    """What somebody can mend who calls a command or the service. The message says what was expected, what came, and the cure."""


class InvalidRequest(UserError):
    """The caller must change the request; the message names the parameter, what was expected, what came, and the cure."""


class Refused(UserError):
    """A rule of this server says no to what is asked, or to what came out. The message begins with the rule's `code`: `code: sentence`."""

    def __init__(self, message: str, audit: Mapping[str, Any] | None = None) -> None:
        """`audit`: what the operator's audit log is told of it beside what it knows, and the caller is not."""
        super().__init__(message)
        self.code = message.partition(":")[0]
        """Stable, for programs: `policy.minor` or `consent.expired`, say."""
        self.audit = dict(audit or {})


class NotANumber(RuntimeError):
    """What was computed holds values that are not finite; the message says what to try."""


class Busy(RuntimeError):
    """The server takes no more work now; the message carries a retry hint."""

    def __init__(self, message: str, reason: str = "full") -> None:
        """`reason`: one of `BUSY`, as metrics count it."""
        super().__init__(message)
        self.reason = reason


BUSY = ("full", "draining", "displaced")
"""Why a request is turned away. `displaced`: it was waiting, and a tenant with fewer requests came."""


class Cancelled(RuntimeError):
    """The caller gave the request up."""


class DeadlineExceeded(RuntimeError):
    """The request's time ran out, in preparation, between two steps, or before its answer was sent."""


class Stopping(RuntimeError):
    """The server is shutting down."""


OUTCOMES: Mapping[str, type[Exception] | None] = {
    "ok": None,
    "refused": Refused,
    "invalid": InvalidRequest,
    "cancelled": Cancelled,
    "deadline": DeadlineExceeded,
    "rejected": Busy,
    "not_a_number": NotANumber,
    "stopping": Stopping,
    "error": RuntimeError,
}
"""How a request may end, as metrics count it, and the error that says so; anything else is an `error`."""


def outcome(error: BaseException | None) -> str:
    """How a request has ended that raised `error`, or nothing."""
    if error is None:
        return "ok"
    return next((name for name, kind in OUTCOMES.items() if kind is not None and isinstance(error, kind)), "error")
