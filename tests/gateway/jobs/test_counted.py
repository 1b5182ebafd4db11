"""Jobs against the pictures of the day: counted once, from when they are taken, unless they end without pictures."""

import asyncio
import contextlib

import pytest
from starlette.requests import Request

from gateway.app import make_app
from gateway.backends.pool import Pool
from gateway.errors import ApiError
from gateway.jobs import routes
from gateway.keys.caller import SCOPES, Caller, Limits
from gateway.keys.store import KeyStore
from gateway.keys.usage import Usage, today
from gateway.settings import Settings
from gateway.state import Gateway
from gateway.web.metrics import Metrics

from .drawn import Server, drawing, ended, working


def caller(a_day):
    return Caller("12345678", "somebody", frozenset(SCOPES), Limits(pictures_per_day=a_day))


@contextlib.asynccontextmanager
async def gateway(folder, server=None, **settings):
    keys = KeyStore(folder)
    try:
        async with working(folder, server or Server(), **{"at_once": 0, **settings}) as jobs:
            yield Gateway(Settings(data=str(folder)), Pool([]), keys, Usage(keys.database, jobs.pictures), jobs, Metrics())
    finally:
        keys.close()


def taken(gate, who, key=None, webhook=None, asked=None):
    return routes._taken(gate, who, asked or drawing(), "image_generation", webhook, key)


def of_jobs(gate):
    return gate.jobs.pictures("12345678", 0)


async def test_a_key_that_is_repeated_after_the_last_picture_is_the_same_job(tmp_path):
    async with gateway(tmp_path) as gate:
        job, is_new = await taken(gate, caller(1), "k")
        again, again_new = await taken(gate, caller(1), "k")
        assert (is_new, again_new, again.id) == (True, False, job.id)
        with pytest.raises(ApiError) as refused:
            await taken(gate, caller(1), "another")
        assert refused.value.code == "daily_limit_exceeded"


@pytest.mark.parametrize("settings, a_day", [({}, 1), ({"most": 1}, 9)], ids=["day", "store"])
async def test_a_key_that_comes_several_times_at_once_is_one_job_and_fills_no_place_of_its_own(tmp_path, settings, a_day):
    async with gateway(tmp_path, **settings) as gate:
        found = await asyncio.gather(*(taken(gate, caller(a_day), "k") for _ in range(8)))
        assert len({job.id for job, _ in found}) == 1
        assert sorted(is_new for _, is_new in found) == [False] * 7 + [True]
        with pytest.raises(ApiError) as refused:
            await taken(gate, caller(a_day), "k", asked=drawing(prompt="another"))
        assert refused.value.code == "idempotency_key_reused"


async def test_a_key_is_the_same_job_whatever_would_refuse_a_new_one_by_now(tmp_path):
    async with gateway(tmp_path, webhook_hosts=("hooks.example.org",)) as gate:
        job, _ = await taken(gate, caller(1), "k", "https://hooks.example.org/")
    async with gateway(tmp_path, most=0) as gate:
        (tmp_path / "waiting").rename(tmp_path / "gone")  # nothing more can be kept
        again, is_new = await taken(gate, caller(0), "k", "https://hooks.example.org/")
        assert (again.id, is_new) == (job.id, False)


@pytest.mark.parametrize("most, webhook", [(0, None), (9, "https://hooks.example.org/")], ids=["full", "webhook"])
async def test_a_job_that_is_not_taken_counts_for_nothing(tmp_path, most, webhook):
    async with gateway(tmp_path, most=most) as gate:
        with pytest.raises(ApiError):
            await taken(gate, caller(5), webhook=webhook)
        assert await of_jobs(gate) == gate.usage.of_answers("12345678", today()) == 0


async def test_who_leaves_at_any_moment_is_counted_for_the_jobs_that_there_are(tmp_path):
    async with gateway(tmp_path) as gate:
        request = asked_of(gate)
        for turns in range(40):
            call = asyncio.ensure_future(routes.accept(request(), caller(1000)))
            for _ in range(turns):
                await asyncio.sleep(0.001 if turns % 2 else 0)
            call.cancel()
            await asyncio.wait([call])
            others = asyncio.all_tasks() - {asyncio.current_task(), *gate.jobs._tasks}
            if others:
                await asyncio.wait(others)
        jobs = await gate.jobs.page("12345678", 100)
        assert 0 < await of_jobs(gate) == len(jobs)


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
async def test_only_what_was_drawn_counts_over_a_restart_too(tmp_path, end):
    server = Server()
    server.faults = [(0, ApiError(400, "no", code="invalid_value"))] if end == "failed" else []
    async with gateway(tmp_path, server, at_once=0 if end == "cancelled" else 1) as gate:
        job, _ = await taken(gate, caller(3), asked=drawing(parameters={"num_images_per_prompt": 3}))
        if end == "cancelled":
            await refused_more(gate, caller(3))
            await gate.jobs.cancel(job.id, "12345678")
        assert (await ended(gate.jobs, job.id, "12345678")).status == end
        await (refused_more(gate, caller(3)) if end == "completed" else taken(gate, caller(3)))
    async with gateway(tmp_path) as gate:
        assert await of_jobs(gate) == (3 if end == "completed" else 1)


async def test_jobs_and_answers_are_counted_together(tmp_path):
    async with gateway(tmp_path) as gate:
        await gate.usage.admit(caller(3), drawing(), None)
        job, _ = await taken(gate, caller(3))
        await gate.usage.admit(caller(3), drawing(), None)
        for asked in (taken(gate, caller(3)), gate.usage.admit(caller(3), drawing(), None)):
            with pytest.raises(ApiError, match="3 are drawn or wait"):
                await asked
        await gate.jobs.cancel(job.id, "12345678")
        await gate.usage.admit(caller(3), drawing(), None)
        await refused_more(gate, caller(3))


async def test_of_many_that_ask_at_once_as_many_are_taken_as_may(tmp_path):
    async with gateway(tmp_path) as gate:
        asked = [taken(gate, caller(7)) if i % 2 else gate.usage.admit(caller(7), drawing(), None) for i in range(30)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(not isinstance(each, ApiError) for each in found) == 7
        assert await of_jobs(gate) + gate.usage.of_answers("12345678", today()) == 7


async def refused_more(gate, who):
    with pytest.raises(ApiError) as refused:
        await taken(gate, who)
    assert refused.value.code == "daily_limit_exceeded"


def asked_of(gate):
    """Requests of `POST /v1/jobs`, as the framework gives them to the route."""
    app = make_app(gate.settings)
    app.state.gateway = gate
    body = b'{"prompt": "a castle"}'

    def request():
        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        headers = [
            (b"content-type", b"application/json"),
            (b"host", b"localhost"),
            (b"content-length", str(len(body)).encode()),
        ]
        scope = {
            "type": "http", "method": "POST", "path": "/v1/jobs", "query_string": b"", "headers": headers, "app": app, "scheme": "http",
            "server": ("localhost", 80), "root_path": "", "state": {"request_id": "asked"},
        }  # fmt: skip
        return Request(scope, receive)

    return request
