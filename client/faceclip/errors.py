"""What can go wrong, as exceptions, and the one function that makes them from a gRPC status.

Knows Triton's wording, because Triton says several things by one status code. Does not know gRPC's classes: a status is its
name, e.g. "UNAVAILABLE".

    FaceCLIPError
    ├── InvalidRequestError       the request must change (a ValueError)
    │   ├── RefusedError          a rule of the server says no; `code` says which
    │   └── ModelNotFoundError    the server has no such model or variant
    ├── ServerUnavailableError    not reachable, stopping, or lost (a ConnectionError)
    │   └── ServerBusyError       refused by admission control; `retry_after_s` if the server said
    ├── DeadlineExceededError     `timeout_s` passed (a TimeoutError)
    ├── ServerError               the server failed
    └── ProtocolError             the server is not one that this client understands
"""

from __future__ import annotations

import re


class FaceCLIPError(Exception):
    """Base of all errors of this package. The transport's own exception, if any, is `__cause__`."""

    request_id = ""
    """Of the call that failed, as the server's log and traces have it; empty where no call was sent."""
    safe_to_retry = False
    """True only where it is certain that the server did not begin the work."""
    lost = False
    """Whether the server, or the way to it, was lost: the work may have been done, or in part, and nothing is wrong with the call."""
    unreached = False
    """Whether nobody was there at all."""


class InvalidRequestError(FaceCLIPError, ValueError):
    """The caller must change the request; the message names the parameter and the cure."""


class ModelNotFoundError(InvalidRequestError):
    """The server has no model of that name or variant."""


class RefusedError(InvalidRequestError):
    """A rule of the server says no to what was asked, or to what came out. `code`: which, such as `policy.minor`, `consent.expired`."""

    code = ""


class ServerUnavailableError(FaceCLIPError, ConnectionError):
    """The server cannot be reached, is stopping, or the connection to it broke."""


class ServerBusyError(ServerUnavailableError):
    """The server has as much work as it accepts. `retry_after_s`: seconds it asks to wait; None if it did not say."""

    retry_after_s: float | None = None


class DeadlineExceededError(FaceCLIPError, TimeoutError):
    """No result within `timeout_s`."""


class ServerError(FaceCLIPError):
    """The server failed, or refuses this client."""


class ProtocolError(FaceCLIPError):
    """An answer that does not follow the protocol: another server, or another version of it."""


_NOISE = re.compile(
    r"\[request id: [^\]]*\] ?"
    r"|in ensemble '[^']*', ?"
    r"|Failed to process the request\(s\) for model(?: instance)? '[^']*', message: ?"
)
_REFUSED = re.compile(r"((?:policy|consent)\.[a-z][a-z0-9_]*): ")
_BUSY = re.compile(
    r"\bbusy\b|retry after|exceeds maximum queue size|request timeout expired|rate.?limited|too many requests|envoy overloaded",
    re.IGNORECASE,
)
_RETRY_AFTER = re.compile(r"retry after (\d+(?:\.\d+)?) ?s", re.IGNORECASE)
_STOPPING = re.compile(r"[Ss]erver is stopping|Server not ready|has no available versions")
"""Triton's words while it stops, by whatever status: at the door, before a step of an ensemble, and within a model's call."""
_AT_THE_DOOR = re.compile(
    r"(?:\[request id: [^\]]*\] ?)?(?:Server is stopping|Request for unknown model: '[^']*' has no available versions|draining: )"
)
"""The same, or a draining server's, and no model's words before them: the request was refused before anything of it ran."""
_BROKEN_OFF = re.compile(r"Received RST_STREAM|Stream removed|Socket closed|[Cc]onnection reset")
"""gRPC's words for a connection that broke within a call, where it gives another status than UNAVAILABLE."""
_NEVER_CONNECTED = re.compile(
    r"failed to connect|connection refused|errors resolving|resolution failed|network is unreachable|no healthy upstream"
    r"|reset reason: (?:remote )?connection (?:failure|timeout)|reset reason: overflow",
    re.IGNORECASE,
)
"""gRPC's words, and those of proxies (Envoy, HTTP) that reached no server: the request went nowhere."""
_HTTP_STATUS = re.compile(r"Received http2 header with status: (\d{3})")
"""gRPC's words for an answer that no gRPC server gave, but a proxy before it."""
_PROXYS_LIMIT = re.compile(
    r"upstream (?:request|response|per try) timeout|^stream timeout$|max_stream_duration|duration timeout", re.IGNORECASE
)
"""Envoy's words for a call that took longer than it allows."""
_NOT_GRPC = re.compile(r"socket closed|failed parsing http|trying to connect an http1|handshak", re.IGNORECASE)
"""How a port answers that speaks something else, before any connection is there."""

_BY_STATUS: dict[str, type[FaceCLIPError]] = {
    "INVALID_ARGUMENT": InvalidRequestError,
    "OUT_OF_RANGE": InvalidRequestError,
    "NOT_FOUND": ModelNotFoundError,
    "UNIMPLEMENTED": ProtocolError,
}


def plain_reason(message: str) -> str:
    """What the model said, without Triton's prefixes and without the Python traceback of the server."""
    text = message.partition("\n\nAt:\n")[0].strip()
    while noise := _NOISE.match(text):
        text = text[noise.end() :]
    return text


def error_from_status(status: str, message: str, address: str, timeout_s: float | None = None) -> FaceCLIPError:
    """The exception for a failed call. `status`: name of the gRPC status; `message`: its details, by Triton or gRPC."""
    reason = plain_reason(message) or f"the server gave no reason ({status})"
    if told := _HTTP_STATUS.search(message):
        return _from_proxy(int(told[1]), reason, address)
    if _PROXYS_LIMIT.search(reason):
        return _too_long_for_proxy(reason, address)
    if status == "UNAVAILABLE":
        return _unavailable(message, reason, address)
    if _STOPPING.search(message) or (status in ("INTERNAL", "UNKNOWN") and _BROKEN_OFF.search(message)):
        return _lost(message, reason, address)
    if status == "DEADLINE_EXCEEDED":
        limit = "in time" if timeout_s is None else f"within {timeout_s:.3g} s"
        return DeadlineExceededError(f"{address}: no answer {limit}; the server may be busy or unreachable: raise timeout_s")
    if status == "CANCELLED" and "timeout" in reason:  # the server noticed the limit first
        return DeadlineExceededError(reason)
    if status == "RESOURCE_EXHAUSTED":
        if "larger than max" in message:
            return InvalidRequestError(f"{address}: a message is too large ({reason}); use fewer or smaller pictures")
        return _busy(reason)
    if status in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return _refused_access(reason, address)
    if status == "INVALID_ARGUMENT" and (refused := _REFUSED.match(reason)):
        error = RefusedError(reason)
        error.code = refused[1]
        return error
    return _BY_STATUS.get(status, ServerError)(reason)


def _refused_access(reason: str, address: str) -> ServerError:
    return ServerError(f"{address}: access refused ({reason}); pass the credentials it expects as token= or headers=")


def _too_long_for_proxy(reason: str, address: str) -> DeadlineExceededError:
    cure = "a proxy ended the call: have it wait longer (Envoy: timeout and stream_idle_timeout 0s), or ask for fewer steps"
    return DeadlineExceededError(f"{address}: {reason}; {cure}")


def _from_proxy(code: int, reason: str, address: str) -> FaceCLIPError:
    """What an HTTP status means that a proxy answered in the server's place."""
    if code in (401, 403):
        return _refused_access(reason, address)
    if code in (408, 504):
        return _too_long_for_proxy(reason, address)
    if code == 413:
        return InvalidRequestError(f"{address}: a proxy takes no message of this size ({reason}); send smaller photographs")
    if code == 429:
        return _busy(f"{address}: a proxy takes no more calls now ({reason})")
    if code in (500, 502, 503):
        return _lost(reason, f"a proxy reached no server, or lost it ({reason})", address)
    return ProtocolError(
        f"{address}: a proxy answered, and no gRPC server ({reason}); have it pass gRPC (HTTP/2) on to the server"
    )


def _unavailable(message: str, reason: str, address: str) -> FaceCLIPError:
    """Triton's UNAVAILABLE means: no connection, full, stopping, model not ready, or protocol restricted; the words tell."""
    if "protocol is restricted" in message:
        return ServerError(f"{address}: access refused ({reason}); pass the header it expects as headers=")
    if _NEVER_CONNECTED.search(message):
        reason = reason.rpartition("last error: ")[2].removeprefix("UNKNOWN: ")
        cure = "does it speak gRPC, as this client does? Triton's gRPC port is usually 8001, 8000 is HTTP's; TLS needs grpcs://"
        cure = cure if _NOT_GRPC.search(reason) else "is the server running there?"
        error = ServerUnavailableError(f"cannot reach {address} ({reason}); {cure}")
        error.safe_to_retry = error.unreached = True
        return error
    if _BUSY.search(message):
        return _busy(reason)
    return _lost(message, reason, address)


def _lost(message: str, reason: str, address: str) -> ServerUnavailableError:
    """The server stops or drains, or the connection broke."""
    error = ServerUnavailableError(f"{address}: {reason}")
    error.safe_to_retry = _AT_THE_DOOR.match(message) is not None
    error.lost = not error.safe_to_retry
    return error


def _busy(reason: str) -> ServerBusyError:
    error = ServerBusyError(reason)
    if seconds := _RETRY_AFTER.search(reason):
        error.retry_after_s = float(seconds[1])
    return error
