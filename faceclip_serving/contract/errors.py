"""The errors that are part of the service: each is an answer to a caller, not a fault of the server."""

from __future__ import annotations


class UserError(Exception):
    """What somebody can mend who calls a command or the service. The message says what was expected, what came, and the cure."""


class InvalidRequest(UserError):
    """The caller must change the request; the message names the parameter, what was expected, what came, and the cure."""


class NotANumber(RuntimeError):
    """What was computed holds values that are not finite; the message says what to try."""


class Busy(RuntimeError):
    """The server takes no more work now; the message carries a retry hint."""


class Cancelled(RuntimeError):
    """The caller gave the request up."""


class DeadlineExceeded(RuntimeError):
    """The request's time ran out between two steps."""


class Stopping(RuntimeError):
    """The server is shutting down."""
