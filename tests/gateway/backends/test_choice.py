"""Which server draws, and what becomes of a drawing whose server fails: over servers that a test holds in its hand."""

import asyncio
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from faceclip import (
    DeadlineExceededError,
    FaceCLIPError,
    InvalidRequestError,
    Progress,
    ServedModel,
    ServerBusyError,
    ServerError,
    ServerUnavailableError,
)
from gateway.backends.choice import SLACK, in_order
from gateway.backends.offer import Offer
from gateway.backends.once import NotBegun
from gateway.backends.pool import Pool
from gateway.drawing import Drawing
from gateway.errors import ApiError

SERVED = ServedModel("faceclip", "nano", {}, {}, {}, [])
NAMES = ["a:8001", "b:8001", "c:8001"]


def drawing(*photos, identities=()):
    return Drawing(None, "a castle", list(photos), None, None, {}, "id", "", "interactive", 60.0, False, list(identities))


@dataclass
class Server:
    """Fails as it is told: before its first event, or after so many."""

    address: str
    in_flight: int = 0
    error: Exception | None = None
    after: int = 0
    ready: bool = True
    why: str = ""
    offers: dict = field(default_factory=lambda: {"faceclip": Offer(SERVED, {}, None, None, False)})
    asked: int = 0

    async def draw(self, model, drawing):
        self.asked += 1
        for step in range(self.after if self.error else 3):
            yield Progress(step, 3)
        if self.error is not None:
            raise self.error

    def lost(self, why):
        self.ready, self.why = False, why


def servers(**loads):
    return [Server(name, in_flight=loads.get(name[0], 0)) for name in NAMES]


def test_without_a_face_the_freest_draws():
    assert [each.address[0] for each in in_order(servers(a=2, b=0, c=1), drawing())] == ["b", "c", "a"]


def test_the_same_face_goes_to_the_same_server_and_faces_go_to_all():
    first = {photo: in_order(servers(), drawing(bytes([photo])))[0].address for photo in range(60)}
    assert first == {photo: in_order(servers()[::-1], drawing(bytes([photo])))[0].address for photo in range(60)}
    assert set(Counter(first.values())) == set(NAMES) and min(Counter(first.values()).values()) >= 8


def test_an_identity_is_a_face():
    chosen = {in_order(servers(), drawing(identities=[b"sealed"]))[0].address for _ in range(5)}
    assert len(chosen) == 1


def test_when_a_server_goes_only_its_faces_move():
    before = {photo: in_order(servers(), drawing(bytes([photo])))[0].address for photo in range(60)}
    after = {photo: in_order(servers()[:2], drawing(bytes([photo])))[0].address for photo in range(60)}
    assert all(after[photo] == server for photo, server in before.items() if server != NAMES[2])


@pytest.mark.parametrize("more", range(SLACK + 3))
def test_a_known_server_that_is_busier_is_chosen_within_the_slack(more):
    face = drawing(b"somebody")
    known = in_order(servers(), face)[0].address
    loaded = servers(**{known[0]: more})
    assert (in_order(loaded, face)[0].address == known) == (more <= SLACK)


def draw(*held):
    async def run():
        steps = []
        async with aclosing(Pool(held).draw(drawing())) as events:
            async for event in events:
                steps.append(event.step)
        return steps

    return asyncio.run(run())


def unsent(error):
    error.safe_to_retry = True
    return error


NOT_BEGUN = [
    NotBegun(ServerUnavailableError("cannot reach")), ServerBusyError("busy"), unsent(ServerUnavailableError("stopping")),
]  # fmt: skip
FINAL = [
    (ServerUnavailableError("lost"), 503), (InvalidRequestError("seed: expected"), 400), (ServerError("failed"), 500),
    (DeadlineExceededError("late"), 504), (TypeError("seed: expected"), 400), (FaceCLIPError("?"), 500),
]  # fmt: skip


@pytest.mark.parametrize("error", NOT_BEGUN, ids=repr)
def test_what_was_not_begun_goes_to_the_next(error):
    first, second = Server("a:8001", error=error), Server("b:8001", in_flight=1)
    assert draw(first, second) == [0, 1, 2]
    assert (first.asked, second.asked) == (1, 1)


@pytest.mark.parametrize("error, status", FINAL, ids=repr)
def test_what_may_have_begun_is_not_tried_again(error, status):
    first, second = Server("a:8001", error=error), Server("b:8001", in_flight=1)
    with pytest.raises(ApiError) as answer:
        draw(first, second)
    assert answer.value.status == status and second.asked == 0


@pytest.mark.parametrize("error", [ServerBusyError("busy"), unsent(ServerUnavailableError("lost"))], ids=repr)
@pytest.mark.parametrize("after", [1, 2])
def test_once_begun_it_is_not_tried_again_whatever_the_error(error, after):
    first, second = Server("a:8001", error=error, after=after), Server("b:8001", in_flight=1)
    with pytest.raises(ApiError) as answer:
        draw(first, second)
    assert answer.value.status == 503 and second.asked == 0


@pytest.mark.parametrize("error", NOT_BEGUN, ids=repr)
def test_where_all_refuse_the_answer_says_when_to_come_again(error):
    with pytest.raises(ApiError) as answer:
        draw(*(Server(name, error=error) for name in NAMES))
    assert answer.value.status == 503 and int(answer.value.headers["Retry-After"]) >= 1


def test_a_server_that_was_not_reached_is_left_until_it_answers():
    first = Server("a:8001", error=NOT_BEGUN[0])
    draw(first, Server("b:8001", in_flight=1))
    assert not first.ready and "cannot reach" in first.why


def test_closing_ends_the_servers_work():
    closed = []

    class Watched(Server):
        async def draw(self, model, drawing):
            try:
                async with aclosing(super().draw(model, drawing)) as events:
                    async for event in events:
                        yield event
            finally:
                closed.append(True)

    async def run():
        async with aclosing(Pool([Watched("a:8001")]).draw(drawing())) as events:
            await anext(events)

    asyncio.run(run())
    assert closed == [True]


def test_nothing_is_begun_while_it_stops():
    server = Server("a:8001")
    pool = Pool([server])
    pool.draining = True
    with pytest.raises(ApiError) as answer:
        asyncio.run(anext(pool.draw(drawing())))
    assert answer.value.status == 503 and server.asked == 0


@pytest.mark.parametrize("field", [{"ready": False}, {"offers": {}}])
def test_a_server_that_is_not_ready_or_has_no_such_model_is_passed_over(field):
    first, second = Server("a:8001", **field), Server("b:8001", in_flight=9)
    assert draw(first, second) == [0, 1, 2] and first.asked == 0
