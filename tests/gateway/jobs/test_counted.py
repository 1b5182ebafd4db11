"""Jobs against the pictures of the day: counted when they are taken, once, and never for a job that there is not."""

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
from gateway.keys.usage import Usage
from gateway.settings import Settings
from gateway.state import Gateway
from gateway.web.metrics import Metrics

from .drawn import Server, drawing, working


def caller(a_day):
    return Caller("12345678", "somebody", frozenset(SCOPES), Limits(pictures_per_day=a_day))


@contextlib.asynccontextmanager
async def gateway(folder, **settings):
    keys = KeyStore(folder)
    try:
        async with working(folder, Server(), at_once=0, **settings) as jobs:
            yield Gateway(Settings(data=str(folder)), None, keys, Usage(keys.database), jobs, Metrics())
    finally:
        keys.close()


def taken(gate, who, key=None, webhook=None):
    return routes._taken(gate, who, drawing(), "image_generation", webhook, key)


async def test_a_key_that_is_repeated_after_the_last_picture_is_the_same_job(tmp_path):
    async with gateway(tmp_path) as gate:
        job, is_new = await taken(gate, caller(1), "k")
        again, again_new = await taken(gate, caller(1), "k")
        assert (is_new, again_new, again.id) == (True, False, job.id)
        with pytest.raises(ApiError) as refused:
            await taken(gate, caller(1), "another")
        assert refused.value.code == "daily_limit_exceeded"


@pytest.mark.parametrize("most, webhook", [(0, None), (9, "https://hooks.example.org/")], ids=["full", "webhook"])
async def test_a_job_that_is_not_taken_counts_for_nothing(tmp_path, most, webhook):
    async with gateway(tmp_path, most=most) as gate:
        with pytest.raises(ApiError):
            await taken(gate, caller(5), webhook=webhook)
        assert gate.usage.pictures_today("12345678") == 0


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
        assert 0 < gate.usage.pictures_today("12345678") == len(jobs)


def asked_of(gate):
    """Requests of `POST /v1/jobs`, as the framework gives them to the route."""
    app = make_app(gate.settings)
    app.state.gateway = gate
    gate.pool = Pool([])
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
