"""The messages are those that Triton 2.51 and gRPC gave in these situations."""

from __future__ import annotations

import pytest

from faceclip import (
    DeadlineExceededError,
    FaceCLIPError,
    InvalidRequestError,
    ModelNotFoundError,
    ProtocolError,
    RefusedError,
    ServerBusyError,
    ServerError,
    ServerUnavailableError,
)
from faceclip.errors import error_from_status, plain_reason


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("in ensemble 'faceclip', prompt: a text is required", "prompt: a text is required"),
        ("in ensemble 'outer', in ensemble 'inner', seed: no", "seed: no"),
        (
            "[request id: <id_unknown>] inference input 'height' data-type is 'INT64'",
            "inference input 'height' data-type is 'INT64'",
        ),
        ("Failed to process the request(s) for model instance 'a_0_0', message: boom", "boom"),
        (
            "in ensemble 'faceclip', Failed to process the request(s) for model 'worker_0_0', message: RuntimeError: boom\n\n"
            "At:\n  /models/worker/1/model.py(9): execute\n",
            "RuntimeError: boom",
        ),
        ("the words in ensemble 'x', stay in the middle", "the words in ensemble 'x', stay in the middle"),
    ],
)
def test_the_reason_is_freed_of_tritons_prefixes_and_tracebacks(message: str, reason: str) -> None:
    assert plain_reason(message) == reason


@pytest.mark.parametrize(
    ("status", "message", "kind", "safe"),
    [
        ("INVALID_ARGUMENT", "in ensemble 'faceclip', height: 7", InvalidRequestError, False),
        ("INVALID_ARGUMENT", "in ensemble 'faceclip', policy.minor: the prompt", RefusedError, False),
        ("INVALID_ARGUMENT", "policy: expected a text", InvalidRequestError, False),
        ("NOT_FOUND", "Request for unknown model: 'x' is not found", ModelNotFoundError, False),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", DeadlineExceededError, False),
        ("INTERNAL", "in ensemble 'faceclip', boom", ServerError, False),
        ("UNKNOWN", "", ServerError, False),
        ("UNIMPLEMENTED", "ModelInfer RPC doesn't support models with decoupled transaction policy", ProtocolError, False),
        ("UNAUTHENTICATED", "no token", ServerError, False),
        ("RESOURCE_EXHAUSTED", "CLIENT: Sent message larger than max (9 vs. 4)", InvalidRequestError, False),
        ("RESOURCE_EXHAUSTED", "quota", ServerBusyError, False),
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:19: Failed to connect to remote host: "
            "Connection refused",
            ServerUnavailableError,
            True,
        ),
        (
            "UNAVAILABLE",
            "errors resolving box:1: [field:hostname lookup error:Domain name not found]",
            ServerUnavailableError,
            True,
        ),
        ("UNAVAILABLE", "Server is stopping, scheduler for model has stopped", ServerUnavailableError, True),
        ("UNAVAILABLE", "in ensemble 'faceclip', Server is stopping, scheduler", ServerUnavailableError, False),
        ("UNAVAILABLE", "[request id: 1] Server is stopping, scheduler", ServerUnavailableError, True),
        ("UNAVAILABLE", "the server is stopping", ServerUnavailableError, False),
        ("NOT_FOUND", "Request for unknown model: 'faceclip' has no available versions", ServerUnavailableError, True),
        (
            "NOT_FOUND",
            "in ensemble 'faceclip', Request for unknown model: 'x' has no available versions",
            ServerUnavailableError,
            False,
        ),
        (
            "INTERNAL",
            "in ensemble 'faceclip', RuntimeError: denoiser: Model denoiser - Error when running inference: Server not ready",
            ServerUnavailableError,
            False,
        ),
        ("INTERNAL", "Received RST_STREAM with error code 2", ServerUnavailableError, False),
        ("UNKNOWN", "Stream removed", ServerUnavailableError, False),
        ("UNAVAILABLE", "draining: this server finishes its work and takes no more", ServerUnavailableError, True),
        ("CANCELLED", "the request's timeout ran out after 3 steps", DeadlineExceededError, False),
        ("CANCELLED", "cancelled after 3 steps", ServerError, False),
        ("UNAVAILABLE", "Socket closed", ServerUnavailableError, False),
        ("UNAVAILABLE", "no healthy upstream", ServerUnavailableError, True),
        ("UNAVAILABLE", "Received http2 header with status: 503", ServerUnavailableError, False),
        ("UNAVAILABLE", "Received http2 header with status: 502", ServerUnavailableError, False),  # it may have run
        (
            "UNAVAILABLE",
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, transport failure "
            "reason: delayed connect error: Connection reset by peer",
            ServerUnavailableError,
            True,
        ),
        (
            "UNAVAILABLE",
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
            ServerUnavailableError,
            False,
        ),
        ("UNAVAILABLE", "local_rate_limited", ServerBusyError, False),
        ("RESOURCE_EXHAUSTED", "local_rate_limited", ServerBusyError, False),
        ("UNAVAILABLE", "envoy overloaded", ServerBusyError, False),
        ("UNAVAILABLE", "Received http2 header with status: 429", ServerBusyError, False),
        ("UNAVAILABLE", "Received http2 header with status: 504", DeadlineExceededError, False),
        ("UNKNOWN", "Received http2 header with status: 408", DeadlineExceededError, False),
        ("UNIMPLEMENTED", "Received http2 header with status: 404", ProtocolError, False),
        ("UNKNOWN", "Received http2 header with status: 413", InvalidRequestError, False),
        ("UNAUTHENTICATED", "Jwt is missing", ServerError, False),
        ("PERMISSION_DENIED", "RBAC: access denied", ServerError, False),
        ("UNAVAILABLE", "in ensemble 'faceclip', server busy: 4 requests in flight", ServerBusyError, False),
        ("UNAVAILABLE", "[request id: 1] Exceeds maximum queue size", ServerBusyError, False),
        ("UNAVAILABLE", "Request timeout expired", ServerBusyError, False),
        ("UNAVAILABLE", "This protocol is restricted, expecting header 'triton-grpc-protocol-key'", ServerError, False),
    ],
)
def test_each_status_becomes_its_error(status: str, message: str, kind: type[FaceCLIPError], safe: bool) -> None:
    error = error_from_status(status, message, "box:8001", 5)
    assert type(error) is kind
    assert error.safe_to_retry is safe
    assert error.lost is (kind is ServerUnavailableError and not safe), "one or the other, of a server that is not there"
    assert str(error)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("server busy; retry after 2.5 s", 2.5),
        ("busy: Retry after 30s", 30.0),
        ("server busy, retry after a while", None),
        ("server busy", None),
    ],
)
def test_the_wait_that_a_busy_server_asks_for_is_read(message: str, seconds: float | None) -> None:
    error = error_from_status("UNAVAILABLE", message, "box:8001")
    assert isinstance(error, ServerBusyError)
    assert error.retry_after_s == seconds


def test_errors_are_also_pythons_own_kinds() -> None:
    assert issubclass(InvalidRequestError, ValueError)
    assert issubclass(ServerBusyError, ConnectionError)
    assert issubclass(DeadlineExceededError, TimeoutError)


def test_an_unreachable_server_is_named() -> None:
    assert "box:8001" in str(error_from_status("UNAVAILABLE", "failed to connect to all addresses", "box:8001"))
    assert "within 5 s" in str(error_from_status("DEADLINE_EXCEEDED", "Deadline Exceeded", "box:8001", 5))


def test_a_refusal_has_the_policys_code() -> None:
    error = error_from_status("INVALID_ARGUMENT", "policy.face_listed: face_images[0] shows somebody", "here")
    assert isinstance(error, RefusedError) and error.code == "policy.face_listed"
    error = error_from_status("INVALID_ARGUMENT", "consent.expired: consent: the record 'c-1' expired", "here")
    assert isinstance(error, RefusedError) and error.code == "consent.expired"
