"""Jobs as a whole, over a drawing that needs no server: acceptance, errors, cancellation, deadlines, restarts."""

import asyncio
import errno
import time

import pytest

from gateway.errors import ApiError
from gateway.jobs import pauses, runner
from gateway.jobs.failures import FolderInUseError, KeyReusedError, StoreUnwritableError, UnknownJobError, WrongStateError
from gateway.jobs.fates import LOSSES
from gateway.jobs.kept.store import Store
from gateway.jobs.service import Jobs, JobSettings
from gateway.jobs.states import Status

from .drawn import Server, drawing, ended, output, until, working

AWAY = ApiError(503, "no server is ready", code="server_unavailable")
BUSY = ApiError(503, "busy", code="server_busy", retry_after_s=0.01)
BROKEN = ApiError(500, "the model failed", code="server_error")
REFUSED = ApiError(400, "height: expected a multiple of 8, got 7", code="invalid_value", param="height")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(pauses, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(runner, "OVERDUE_S", 0.02)


def photographs(folder):
    return list((folder / "waiting").iterdir())


async def test_a_job_is_drawn_kept_and_its_photographs_deleted(tmp_path):
    server = Server()
    async with working(tmp_path, server) as jobs:
        job, is_new = await jobs.accept(drawing(), "", "image_generation")
        assert is_new and job.status is Status.QUEUED
        done = await ended(jobs, job.id)
        assert done.status is Status.COMPLETED
        (picture,) = done.result["pictures"]
        assert picture["seed"] == server.begun[0].parameters["seed"]
        assert jobs.results.kept(job.id) == done.result
        assert server.begun[0].request_id == job.id
        await until(lambda: asyncio.sleep(0, not photographs(tmp_path)))


async def test_what_waits_is_for_its_owner_alone(tmp_path):
    async with working(tmp_path, Server(), at_once=0) as jobs:
        job, _ = await jobs.accept(drawing(), "me", "image_generation")
        (file,) = photographs(tmp_path)
        assert file.stat().st_mode & 0o77 == 0
        assert b"photograph" in file.read_bytes()
        for call in (jobs.get(job.id, "you"), jobs.cancel(job.id, "you")):
            with pytest.raises(UnknownJobError):
                await call
        assert await jobs.page("you", 10) == []


@pytest.mark.parametrize("changed", [{"prompt": "another"}, {"photos": [b"other"]}, {"parameters": {"seed": 1}}])
async def test_an_idempotency_key_is_of_one_request(tmp_path, changed):
    async with working(tmp_path, Server(), at_once=0) as jobs:
        first, _ = await jobs.accept(drawing(), "", "image_generation", idempotency_key="k")
        again, is_new = await jobs.accept(drawing(request_id="another"), "", "image_generation", idempotency_key="k")
        assert (again.id, is_new) == (first.id, False)
        with pytest.raises(KeyReusedError):
            await jobs.accept(drawing(**changed), "", "image_generation", idempotency_key="k")
        assert len(photographs(tmp_path)) == 1
        assert jobs.runner.load == {"queued": 1, "generating": 0}


@pytest.mark.parametrize("faults", [[AWAY] * 7, [BUSY] * 7, [AWAY, BROKEN, AWAY, BUSY, BROKEN]])
async def test_a_server_that_is_away_fails_no_job(tmp_path, faults):
    server = Server()
    server.faults = [(0, fault) for fault in faults]
    async with working(tmp_path, server) as jobs:
        job, _ = await jobs.accept(drawing(), "", "image_generation")
        done = await ended(jobs, job.id)
        assert done.status is Status.COMPLETED
        assert done.attempts == len(faults) + 1
        assert len({begun.parameters["seed"] for begun in server.begun}) == 1


async def test_a_refused_request_fails_at_once_with_the_servers_words(tmp_path):
    server = Server()
    server.faults = [(0, REFUSED)]
    async with working(tmp_path, server) as jobs:
        job, _ = await jobs.accept(drawing(), "", "image_generation")
        done = await ended(jobs, job.id)
        assert (done.status, done.attempts) == (Status.FAILED, 1)
        assert done.error == REFUSED.as_json()["error"]
        other, _ = await jobs.accept(drawing(), "", "image_generation")
        assert (await ended(jobs, other.id)).status is Status.COMPLETED


@pytest.mark.parametrize("fault", [(1, AWAY), (0, BROKEN)])
async def test_a_job_that_brings_the_server_down_each_time_fails(tmp_path, fault):
    server = Server()
    server.faults = [fault] * 100
    async with working(tmp_path, server) as jobs:
        job, _ = await jobs.accept(drawing(), "", "image_generation")
        done = await ended(jobs, job.id)
        assert (done.status, done.attempts) == (Status.FAILED, LOSSES)


async def test_an_error_of_our_own_fails_the_job_without_telling_what(tmp_path):
    server = Server()
    server.faults = [(0, RuntimeError("secret"))]
    async with working(tmp_path, server) as jobs:
        job, _ = await jobs.accept(drawing(), "", "image_generation")
        done = await ended(jobs, job.id)
        assert done.error["code"] == "internal_error"
        assert "secret" not in done.error["message"]


async def test_a_job_waits_no_longer_than_its_deadline(tmp_path):
    server = Server()
    server.faults = [(0, AWAY)] * 10_000
    async with working(tmp_path, server, at_once=1) as jobs:
        for _ in range(2):
            await jobs.accept(drawing(), "", "image_generation", deadline_s=0.3)
        for job in await jobs.page("", 10):
            done = await ended(jobs, job.id)
            assert (done.status, done.error["code"]) == (Status.FAILED, "deadline_exceeded")


@pytest.mark.parametrize("at_once", [0, 1], ids=["waiting", "drawn"])
async def test_a_job_that_is_cancelled_several_times_at_once_is_cancelled_for_each(tmp_path, at_once):
    server = Server(step_s=0.01, steps=1000)
    async with working(tmp_path, server, at_once=at_once) as jobs:
        job, _ = await jobs.accept(drawing(), "", "image_generation")
        await until(lambda: asyncio.sleep(0, len(server.begun) == at_once))
        found = await asyncio.gather(*(jobs.cancel(job.id, "") for _ in range(8)))
        assert {(each.id, each.status) for each in found} == {(job.id, Status.CANCELLED)}


async def test_a_cancelled_drawing_ends_within_two_steps(tmp_path):
    server = Server(step_s=0.05, steps=100)
    async with working(tmp_path, server) as jobs:
        job, _ = await jobs.accept(drawing(), "", "image_generation")
        await until(lambda: asyncio.sleep(0, server.steps_of.get(job.id, 0) >= 3))
        heard = server.steps_of[job.id]
        cancelled = await jobs.cancel(job.id, "")
        assert cancelled.status is Status.CANCELLED
        await asyncio.sleep(0.2)
        assert server.steps_of[job.id] <= heard + 2
        assert jobs.runner.load == {"queued": 0, "generating": 0}
        assert (await jobs.cancel(job.id, "")).status is Status.CANCELLED
        assert not photographs(tmp_path)


async def test_a_waiting_job_is_cancelled_and_an_ended_one_is_not(tmp_path):
    server = Server(step_s=0.05)
    async with working(tmp_path, server, at_once=1) as jobs:
        first, _ = await jobs.accept(drawing(), "", "image_generation")
        second, _ = await jobs.accept(drawing(), "", "image_generation")
        assert (await jobs.cancel(second.id, "")).started is None
        await ended(jobs, first.id)
        with pytest.raises(WrongStateError):
            await jobs.cancel(first.id, "")
        assert len(server.begun) == 1


async def test_cancels_at_every_moment_end_each_job_once(tmp_path):
    server = Server(step_s=0.001)
    ends = []
    async with working(tmp_path, server, at_once=3) as jobs:
        tell = jobs.runner._on_end
        jobs.runner._on_end = lambda job: (ends.append(job.id), tell(job))
        made = [(await jobs.accept(drawing(), "", "image_generation"))[0].id for _ in range(30)]

        async def cancel(i, job_id):
            await asyncio.sleep(0.003 * i)
            try:
                await jobs.cancel(job_id, "")
            except WrongStateError as error:
                assert error.status is Status.COMPLETED

        await asyncio.gather(*(cancel(i, job_id) for i, job_id in enumerate(made)))
        for job_id in made:
            await ended(jobs, job_id)
        await until(lambda: asyncio.sleep(0, jobs.runner.load == {"queued": 0, "generating": 0}))
        assert sorted(ends) == sorted(made)
        completed = {job.id for job in await jobs.page("", 100) if job.status is Status.COMPLETED}
        await until(lambda: asyncio.sleep(0, set(jobs.results.ids()) == completed and not photographs(tmp_path)))


async def test_a_restart_goes_on_with_what_waits_and_what_was_drawn(tmp_path):
    slow = Server(step_s=10)
    async with working(tmp_path, slow, at_once=1) as jobs:
        drawn, _ = await jobs.accept(drawing(), "", "image_generation")
        waits, _ = await jobs.accept(drawing(), "", "image_generation")
        await until(lambda: asyncio.sleep(0, slow.begun))
    server = Server()
    async with working(tmp_path, server) as jobs:
        for job in (drawn, waits):
            assert (await ended(jobs, job.id)).status is Status.COMPLETED
    again = next(each for each in server.begun if each.request_id == drawn.id)
    assert again.parameters == slow.begun[0].parameters
    assert len(server.begun) == 2


@pytest.mark.parametrize("whole", [True, False])
async def test_a_restart_adopts_a_result_that_is_whole_and_draws_one_that_is_not(tmp_path, whole):
    async with working(tmp_path, Server(), at_once=0) as jobs:
        job, _ = await jobs.accept(drawing(), "", "image_generation")
        await jobs._disk(jobs._store.claim, job.id, time.time())
        await jobs._disk(jobs.results.keep, job.id, output(5), time.time(), time.time() + 60)
        if not whole:
            (tmp_path / "results" / job.id / "0.png").write_bytes(b"half")
    server = Server()
    async with working(tmp_path, server) as jobs:
        done = await ended(jobs, job.id)
        assert done.status is Status.COMPLETED
        assert jobs.results.kept(job.id) is not None
        assert len(server.begun) == (0 if whole else 1)


async def test_a_restart_deletes_what_no_job_needs(tmp_path):
    async with working(tmp_path, Server()) as jobs:
        job, _ = await jobs.accept(drawing(), "", "image_generation")
        await ended(jobs, job.id)
        for leftover in ("job_" + "0" * 32, job.id):
            (tmp_path / "waiting" / leftover).write_bytes(b"photograph")
        await jobs._disk(jobs.results.keep, "job_" + "1" * 32, output(), time.time(), time.time() + 60)
        (address,) = await jobs.keep(output())
    async with working(tmp_path, Server()) as jobs:
        assert photographs(tmp_path) == []
        assert set(jobs.results.ids()) == {job.id, address.split("/")[-1].split("-")[0]}


@pytest.mark.parametrize("name", ["waiting", "results"])
async def test_what_is_somebody_elses_stays_and_ends_no_start(tmp_path, name):
    theirs = [tmp_path / name / "lost+found", tmp_path / name / "notes.txt"]
    async with working(tmp_path, Server(), keep_s=0.2) as jobs:
        theirs[0].mkdir()
        theirs[1].write_text("not the gateway's")
        (tmp_path / "waiting" / ("job_" + "0" * 32)).mkdir()  # ours by its name, and cannot be deleted as a file
    async with working(tmp_path, Server(), keep_s=0.2) as jobs:
        job, _ = await jobs.accept(drawing(), "", "image_generation")
        await ended(jobs, job.id)
        await until(lambda: asyncio.sleep(0, not jobs.results.ids()))
    assert all(each.exists() for each in theirs)


async def test_a_second_gateway_on_the_same_folder_is_refused(tmp_path):
    async with working(tmp_path, Server()):
        with pytest.raises(FolderInUseError, match=r"another gateway works in it \(process \d+\).*--data"):
            async with working(tmp_path, Server()):
                pass
    async with working(tmp_path, Server()):
        pass


async def test_a_full_disk_loses_no_picture_and_refuses_jobs_in_words(tmp_path, monkeypatch):
    server = Server()
    full = True

    def keep(self, *arguments):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return kept(self, *arguments)

    async with working(tmp_path, server) as jobs:
        kept = type(jobs.results).keep
        monkeypatch.setattr(type(jobs.results), "keep", keep)
        job, _ = await jobs.accept(drawing(), "", "image_generation")
        await until(lambda: asyncio.sleep(0, server.steps_of.get(job.id) == server.steps))
        await asyncio.sleep(0.1)
        assert (await jobs.get(job.id, "")).status is Status.GENERATING
        full = False
        assert (await ended(jobs, job.id)).status is Status.COMPLETED
        assert len(server.begun) == 1

        def no_space(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(type(jobs._spool), "keep", no_space)
        with pytest.raises(StoreUnwritableError, match="No space left"):
            await jobs.accept(drawing(), "", "image_generation")


async def test_swept_jobs_are_known_without_their_results(tmp_path):
    async with working(tmp_path, Server(), keep_s=0.2) as jobs:
        job, _ = await jobs.accept(drawing(), "", "image_generation")
        await ended(jobs, job.id)

        async def swept():
            found = await jobs.get(job.id, "")
            return found if found.swept else None

        found = await until(swept)
        assert found.result is None
        await until(lambda: asyncio.sleep(0, not jobs.results.ids()))
        assert await jobs.page("", 10) == []


async def followed(jobs, job_id, after=(-1, -1)):
    return [event async for event in jobs.follow(job_id, "", after)]


async def test_whoever_follows_hears_every_step_and_the_end(tmp_path):
    async with working(tmp_path, Server(step_s=0.01, steps=5), at_once=1) as jobs:
        first, _ = await jobs.accept(drawing(previews=True), "", "image_generation")
        second, _ = await jobs.accept(drawing(), "", "image_generation")
        told = await followed(jobs, second.id)
        assert [event.data["queue_position"] for event in told if getattr(event, "name", "") == "queued"] == [1]
        assert [event.data["step"] for event in told[:-1] if event.name == "progress"] == [1, 2, 3, 4, 5]
        assert told[-1].status is Status.COMPLETED
        assert [event.status for event in await followed(jobs, first.id)] == [Status.COMPLETED]


async def test_whoever_comes_back_hears_the_rest_and_nothing_twice(tmp_path):
    async with working(tmp_path, Server(step_s=0.03, steps=10)) as jobs:
        job, _ = await jobs.accept(drawing(previews=True), "", "image_generation")
        heard, last = [], (-1, -1)
        while not (heard and hasattr(heard[-1], "status")):
            events = jobs.follow(job.id, "", last)
            async for event in events:  # two at a time, then the connection breaks
                heard.append(event)
                last = getattr(event, "id", last)
                if hasattr(event, "status") or len(heard) % 2 == 0:
                    break
            await events.aclose()
        steps = [event.data["step"] for event in heard[:-1] if event.name == "progress"]
        assert steps == list(range(1, 11))
        ids = [event.id for event in heard[:-1] if event.name != "queued"]
        assert ids == sorted(set(ids))
        assert await followed(jobs, job.id, (1, float("inf"))) == []


async def test_followers_leave_nothing_behind(tmp_path):
    async with working(tmp_path, Server(step_s=0.05), at_once=1) as jobs:
        job, _ = await jobs.accept(drawing(), "", "image_generation")
        events = jobs.follow(job.id, "", (-1, -1))
        await anext(events)
        assert jobs.runner.trail(job.id).followers == 1
        await events.aclose()
        assert jobs.runner.trail(job.id).followers == 0
        await ended(jobs, job.id)
        await until(lambda: asyncio.sleep(0, not jobs.runner._trails and not jobs.runner._tasks))


async def test_a_stop_waits_for_what_is_drawn(tmp_path):
    server = Server(step_s=0.03)
    async with working(tmp_path, server, drain_s=10) as jobs:
        job, _ = await jobs.accept(drawing(), "", "image_generation")
        await until(lambda: asyncio.sleep(0, server.begun))
    store = Store(tmp_path / "jobs.sqlite")
    assert store.get(job.id).status is Status.COMPLETED
    store.close()


@pytest.mark.parametrize("at_once", [0, 1], ids=["waiting", "drawn"])
async def test_whoever_follows_is_let_go_by_a_stop_and_goes_on_after_it(tmp_path, at_once):
    server = Server(step_s=0.01, steps=10_000)
    async with working(tmp_path, server, at_once=at_once) as jobs:
        job, _ = await jobs.accept(drawing(), "", "image_generation")
        following = asyncio.create_task(followed(jobs, job.id))
        await until(lambda: asyncio.sleep(0, jobs.runner.trail(job.id).followers and len(server.begun) == at_once))
        await jobs.drain(0.1)
        async with asyncio.timeout(30):
            heard = await following
        assert heard and not any(hasattr(event, "status") for event in heard)
    server.steps = 3
    async with working(tmp_path, server) as jobs:
        assert (await followed(jobs, job.id, heard[-1].id))[-1].status is Status.COMPLETED


@pytest.mark.parametrize("turns", range(8))
async def test_a_stop_is_heard_in_whatever_moment_it_comes(tmp_path, turns):
    async with asyncio.timeout(30):
        async with working(tmp_path, Server(), at_once=0) as jobs:
            await jobs.accept(drawing(), "", "image_generation")
            await asyncio.sleep(0.05)
            jobs.runner._wake.set()
            jobs._deliveries.wake()
            for _ in range(turns):
                await asyncio.sleep(0)


def test_a_data_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "results").write_text("a file in its place")
    with pytest.raises(StoreUnwritableError, match="data folder"):
        Jobs(tmp_path, JobSettings(), Server().draw, lambda job: {})
