"""Pictures count for the day when their drawing was admitted, whenever it ends."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace

import pytest

from gateway.api.images import _limited, result
from gateway.errors import ApiError
from gateway.keys import usage
from gateway.keys.caller import SCOPES, Caller, Limits
from gateway.keys.store import KeyStore
from gateway.keys.usage import Usage
from tests.gateway.jobs.drawn import drawing, output

FIRST = usage.today()
SECOND = FIRST + timedelta(days=1)
CALLER = Caller("12345678", "somebody", frozenset(SCOPES), Limits(pictures_per_day=3))


async def no_jobs(key_id, since):
    return 0


@pytest.fixture
def counts(tmp_path):
    keys = KeyStore(tmp_path)
    yield Usage(keys.database, no_jobs)
    keys.close()


@pytest.fixture
def day(monkeypatch):
    """day(which): it is that one from now on."""

    def set(which):
        monkeypatch.setattr(usage, "today", lambda: which)

    set(FIRST)
    return set


def both(counts):
    return [counts.of_answers(CALLER.key_id, each) for each in (FIRST, SECOND)]


def asked(pictures):
    return drawing(parameters={"num_images_per_prompt": pictures, "seed": 7})


@pytest.mark.parametrize("busy", [False, True], ids=["nothing else", "others were counted since"])
@pytest.mark.parametrize("end", ["drawn", "failed", "left"])
async def test_what_ends_after_midnight_counts_for_the_day_before(counts, day, end, busy):
    late = asyncio.Event()

    async def draw(_):
        day(SECOND)
        if busy:
            await counts.admit(CALLER, asked(3), None)
        late.set()
        if end == "failed":
            raise ApiError(503, "gone", code="server_unavailable")
        if end == "left":
            await asyncio.Event().wait()
        yield output()

    gateway = SimpleNamespace(usage=counts, pool=SimpleNamespace(draw=draw))
    drawn = asyncio.ensure_future(result(_limited(gateway, CALLER, asked(2))))
    await late.wait()
    if end == "left":
        drawn.cancel()
    await asyncio.wait([drawn])
    # The day before is forgotten when something is counted for the next.
    assert both(counts) == [2 if end == "drawn" and not busy else 0, 3 if busy else 0]


async def test_who_leaves_at_midnight_while_he_is_counted_counts_for_neither_day(counts, day):
    for turns in range(40):
        day(FIRST)
        call = asyncio.ensure_future(counts.admit(CALLER, asked(1), None))
        for _ in range(turns):
            await asyncio.sleep(0)
        day(SECOND)
        call.cancel()
        try:
            counted = await call
        except asyncio.CancelledError:
            assert both(counts) == [0, 0]
        else:
            await counts.give_back(CALLER, asked(1), counted)


async def test_a_new_day_begins_with_none(counts, day):
    await counts.admit(CALLER, asked(3), None)
    with pytest.raises(ApiError, match="3 are drawn"):
        await counts.admit(CALLER, asked(1), None)
    day(SECOND)
    assert await counts.admit(CALLER, asked(3), None) == SECOND
