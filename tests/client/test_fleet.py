"""A client of several servers: where calls go, what is sent again, and what proxies are told. Real gRPC servers; Envoy: tests/fleet."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faceclip import (
    AsyncFaceCLIPPipeline,
    DeadlineExceededError,
    FaceCLIPOutput,
    FaceCLIPPipeline,
    InvalidRequestError,
    Progress,
    ServerBusyError,
    ServerError,
    ServerUnavailableError,
)
from faceclip.calls import FACE_HEADER, TENANT_HEADER, TOKEN_VARIABLE
from faceclip.turns import AVOIDED_S, Servers, Turn

from .triton_double import TritonDouble

DRAINING = ("UNAVAILABLE", "draining: this server finishes its work and takes no more; use another one")
LOST = [
    ("UNAVAILABLE", "Socket closed"),
    ("UNAVAILABLE", "the server is stopping"),
    ("UNAVAILABLE", "Received http2 header with status: 502"),
    ("UNAVAILABLE", "Received http2 header with status: 503"),
    ("UNAVAILABLE", "upstream connect error or disconnect/reset before headers. reset reason: connection termination"),
    ("INTERNAL", "Received RST_STREAM with error code 2"),
]
NOT_BEGUN = [
    DRAINING,
    ("UNAVAILABLE", "Server is stopping, scheduler for model has stopped accepting new inference requests"),
    ("NOT_FOUND", "Request for unknown model: 'faceclip' has no available versions"),
    ("UNAVAILABLE", "no healthy upstream"),
    ("UNAVAILABLE", "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"),
]


@pytest.fixture
def servers() -> Iterator[list[TritonDouble]]:
    doubles = [TritonDouble() for _ in range(3)]
    yield doubles
    for double in doubles:
        double.stop()


@pytest.fixture
def fleet(servers: list[TritonDouble]) -> Iterator[FaceCLIPPipeline]:
    with FaceCLIPPipeline.from_pretrained([each.address for each in servers], timeout_s=20) as pipe:
        yield pipe


def _counts(servers: list[TritonDouble]) -> list[int]:
    return [len(each.received) for each in servers]


def _draw(pipe: FaceCLIPPipeline, **options: Any) -> FaceCLIPOutput:
    return pipe("a lighthouse", height=64, width=64, **options)


def _stream(pipe: FaceCLIPPipeline, **options: Any) -> FaceCLIPOutput:
    *_, last = pipe.stream("a lighthouse", height=64, width=64, num_inference_steps=2, **options)
    assert isinstance(last, FaceCLIPOutput)
    return last


def _in_asyncio(pipe: FaceCLIPPipeline, streamed: bool, **options: Any) -> FaceCLIPOutput:
    async def draw() -> FaceCLIPOutput:
        async with await AsyncFaceCLIPPipeline.from_pretrained(pipe.address, timeout_s=20) as own:
            if not streamed:
                return await own("a lighthouse", height=64, width=64, **options)
            last: Any = None
            async with aclosing(own.stream("a lighthouse", height=64, width=64, num_inference_steps=2, **options)) as events:
                async for event in events:
                    last = event
            return last  # type: ignore[no-any-return]

    return asyncio.run(draw())


WAYS: dict[str, Callable[..., FaceCLIPOutput]] = {
    "blocking": _draw,
    "blocking stream": _stream,
    "asyncio": lambda pipe, **options: _in_asyncio(pipe, False, **options),
    "asyncio stream": lambda pipe, **options: _in_asyncio(pipe, True, **options),
}


@pytest.mark.parametrize("way", WAYS)
def test_calls_go_round_all_servers(fleet: FaceCLIPPipeline, servers: list[TritonDouble], way: str) -> None:
    for _ in range(6):
        _draw(fleet)
    assert _counts(servers) == [2, 2, 2]
    assert WAYS[way](fleet).images and sum(_counts(servers)) == 7


@pytest.mark.parametrize("way", WAYS)
def test_who_is_gone_is_passed_by_without_a_wait(fleet: FaceCLIPPipeline, servers: list[TritonDouble], way: str) -> None:
    servers[1].stop()
    for _ in range(4):
        assert WAYS[way](fleet).images
    assert sum(_counts(servers)) == 4 and not servers[1].received


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("failure", NOT_BEGUN)
def test_what_was_not_begun_goes_to_the_next(
    fleet: FaceCLIPPipeline, servers: list[TritonDouble], way: str, failure: tuple[str, str]
) -> None:
    for each in servers[:2]:
        each.failures = [failure] * 9
    assert WAYS[way](fleet).images and _counts(servers)[2] == 1


def test_a_busy_server_is_passed_by_and_only_if_all_are_the_caller_hears_of_it(
    fleet: FaceCLIPPipeline, servers: list[TritonDouble]
) -> None:
    servers[0].busy_calls = servers[1].busy_calls = 9
    for _ in range(3):
        assert _draw(fleet).images
    servers[2].stop()
    with pytest.raises(ServerBusyError) as raised:
        _draw(fleet)
    assert raised.value.retry_after_s == 0.2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("failure", LOST)
def test_a_drawing_whose_server_was_lost_is_repeated_once_with_its_seed(
    fleet: FaceCLIPPipeline, servers: list[TritonDouble], way: str, failure: tuple[str, str]
) -> None:
    once = [failure]
    for each in servers:
        each.failures = once  # of whoever is asked first
    result = WAYS[way](fleet)
    seeds = [int(arrays["seed"][0]) for each in servers for arrays in each.received]
    assert result.images and seeds == [result.seed] * 2, "it was sent twice, with the seed that was drawn here"


def test_what_loses_two_servers_is_not_given_a_third(fleet: FaceCLIPPipeline, servers: list[TritonDouble]) -> None:
    for each in servers:
        each.failures = [LOST[0]] * 9
    with pytest.raises(ServerUnavailableError, match="Socket closed"):
        _draw(fleet)
    assert sum(_counts(servers)) == 2


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (("CANCELLED", "ended by its id, as its caller wished"), ServerError),
        (("INTERNAL", "boom"), ServerError),
        (("CANCELLED", "the request's timeout ran out after 3 steps"), DeadlineExceededError),
        (("UNAVAILABLE", "upstream request timeout"), DeadlineExceededError),
        (("PERMISSION_DENIED", "RBAC: access denied"), ServerError),
    ],
)
def test_what_would_fail_again_or_was_given_up_is_not_repeated(
    fleet: FaceCLIPPipeline, servers: list[TritonDouble], failure: tuple[str, str], kind: type[Exception]
) -> None:
    for each in servers:
        each.failures = [failure]
    with pytest.raises(kind):
        _draw(fleet)
    assert sum(_counts(servers)) == 1


@pytest.mark.parametrize("blocking", [True, False])
def test_a_stream_whose_server_is_lost_begins_again_elsewhere(
    fleet: FaceCLIPPipeline, servers: list[TritonDouble], blocking: bool
) -> None:
    async def in_asyncio() -> list[Any]:
        async with await AsyncFaceCLIPPipeline.from_pretrained(fleet.address) as own:
            return [event async for event in own.stream("a lighthouse", num_inference_steps=3, seed=5)]

    once = [LOST[0]]
    for each in servers:
        each.breaks = once
    events = [*fleet.stream("a lighthouse", num_inference_steps=3, seed=5)] if blocking else asyncio.run(in_asyncio())
    assert [event.step for event in events if isinstance(event, Progress)] == [1, 1, 2, 3]
    assert sum(map(bool, _counts(servers))) == 2, "the second time at another one"
    assert isinstance(events[-1], FaceCLIPOutput)
    np.testing.assert_array_equal(np.asarray(events[-1].images[0]), np.asarray(fleet("a lighthouse", seed=5).images[0]))


def test_an_error_of_the_callers_own_callback_begins_nothing_again(
    fleet: FaceCLIPPipeline, servers: list[TritonDouble]
) -> None:
    def callback(*_: Any) -> None:
        error = ServerUnavailableError("another server's")
        error.lost = True
        raise error

    with pytest.raises(ServerUnavailableError, match="another server's"):
        fleet("a lighthouse", callback_on_step_end=callback)
    assert sum(_counts(servers)) == 1


def test_a_call_is_ended_by_its_id_wherever_it_is(fleet: FaceCLIPPipeline, servers: list[TritonDouble]) -> None:
    _draw(fleet, request_id="order-1")
    servers[[bool(each.received) for each in servers].index(False)].stop()
    assert fleet.cancel("order-1")
    with pytest.raises(ServerUnavailableError):
        fleet.cancel("nobody's")  # whether the server that is gone had it is not known


def test_several_clients_of_one_process_have_connections_of_their_own() -> None:
    """Else all of them are one connection, and a balancer of connections sends all to one server."""
    double = TritonDouble()
    pipes = [FaceCLIPPipeline.from_pretrained(double.address) for _ in range(4)]
    for pipe in pipes:
        _draw(pipe)
    peers = set(double.peers)
    for pipe in pipes:
        pipe.close()
    double.stop()
    assert len(peers) == 4


# ------------------------------------------------------------------------------------------------------------- who is next
def test_servers_are_asked_in_turn_and_those_that_failed_last(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("faceclip.turns.time.monotonic", lambda: now)
    servers = Servers(["a", "b", "c"])
    assert {servers.in_order()[0] for _ in range(3)} == {"a", "b", "c"}
    servers.failed("a")
    assert all(servers.in_order()[2] == "a" for _ in range(3))
    now += AVOIDED_S
    assert {servers.in_order()[0] for _ in range(3)} == {"a", "b", "c"}


def test_a_turn_has_one_time_limit_for_all_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("faceclip.turns.time.monotonic", lambda: now)
    turn, error = Turn(Servers(["a", "b"]), 5.0), ServerUnavailableError("gone")
    error.safe_to_retry = True
    first = turn.member
    now += 3.0
    turn.failed(error)
    assert turn.member != first and turn.remaining_s() == 2.0
    with pytest.raises(ServerUnavailableError, match="gone"):
        turn.failed(error)


# --------------------------------------------------------------------------------------------------------- what calls carry
def _photo(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("way", WAYS)
def test_a_token_goes_with_every_call(server: TritonDouble, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "from-outside")
    with FaceCLIPPipeline.from_pretrained(server.address) as pipe:
        WAYS[way](pipe)
    assert server.metadata[-1]["authorization"] == "Bearer from-outside"


def test_what_is_said_goes_before_the_environments_token(server: TritonDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "from-outside")
    for options, expected in (
        ({"token": "mine"}, "Bearer mine"),
        ({"headers": {"Authorization": "Basic x"}}, "Basic x"),
        ({"token": ""}, None),
    ):
        with FaceCLIPPipeline.from_pretrained(server.address, **options) as pipe:  # type: ignore[arg-type]
            _draw(pipe)
        assert server.metadata[-1].get("authorization") == expected


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"token": "a\nb"}, "printable ASCII"),
        ({"token": "a b"}, "printable ASCII"),
        ({"token": "é"}, "printable ASCII"),
        ({"token": "a", "headers": {"Authorization": "Basic x"}}, "leave out one"),
    ],
)
def test_what_is_no_token_is_refused_and_never_shown(server: TritonDouble, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says) as raised:
        FaceCLIPPipeline.from_pretrained(server.address, **options)
    assert str(options["token"]) not in str(raised.value) or len(options["token"]) == 1


@pytest.mark.parametrize(
    ("tenant", "header"), [("shop", "shop"), ("two words", "two words"), ("小店", None), ("", None), (" a", None)]
)
def test_a_tenant_is_told_to_proxies_where_a_header_can_say_it(
    pipe: FaceCLIPPipeline, server: TritonDouble, tenant: str, header: str | None
) -> None:
    _draw(pipe, tenant=tenant)
    assert server.metadata[-1].get(TENANT_HEADER) == header
    assert server.received[-1]["tenant"][0].decode() == tenant


def test_equal_faces_are_told_by_a_header_where_that_is_wanted(server: TritonDouble) -> None:
    with FaceCLIPPipeline.from_pretrained(server.address, affinity=True) as pipe:
        for seed in (1, 1, 2, None):
            _draw(pipe, face_image=None if seed is None else _photo(seed))
    first, again, other, none = (told.get(FACE_HEADER) for told in server.metadata)
    assert first == again != other and first is not None and none is None
    with FaceCLIPPipeline.from_pretrained(server.address) as pipe:
        _draw(pipe, face_image=_photo(1))
    assert FACE_HEADER not in server.metadata[-1]
