"""Takes waiting jobs, has them drawn, keeps what came, and records how each ended.

What becomes of an error says `fates`. While the disk is full or read-only, what was drawn stays in memory, and is written later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from faceclip import FaceCLIPOutput, Progress

from ..drawing import Drawing
from ..errors import ApiError, from_client
from .failures import UnknownJobError, WrongStateError
from .fates import fate, late
from .kept.disk import Disk
from .kept.results import Results
from .kept.spool import Spool
from .kept.store import Store
from .kept.wordless import without_quotations
from .pauses import Pauses
from .records import Job
from .states import Status
from .trail import Trail
from .waiting import Place, Waiting

OVERDUE_S = 1.0
"""How often waiting jobs are looked through for deadlines."""
Draw = Callable[[Drawing, str], AsyncGenerator[Progress | FaceCLIPOutput, None]]
"""`draw(drawing, owner)`; the owner is a key's id."""
log = logging.getLogger(__name__)


class Runner:
    """`at_once`: drawings at a time. `keep_s`: how long results and ended jobs are kept. `on_end(job)` is called for each that ended."""

    def __init__(
        self,
        draw: Draw,
        disk: Disk,
        store: Store,
        spool: Spool,
        results: Results,
        at_once: int,
        keep_s: float,
        on_end: Callable[[Job], None],
    ) -> None:
        self._draw_it, self._disk, self._store, self._spool, self._results = draw, disk, store, spool, results
        self._at_once, self._keep_s, self._on_end = at_once, keep_s, on_end
        self._waiting = Waiting()
        self._trails: dict[str, Trail] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._pauses = Pauses()
        self._wake = asyncio.Event()
        self._stopping = self._stopped = False

    def add(self, job: Job) -> None:
        """An accepted job, which is `queued`."""
        self._trails[job.id] = Trail(job.attempts)
        self._queue(job)

    def trail(self, job_id: str) -> Trail | None:
        """None: the job has ended, or is not known."""
        return self._trails.get(job_id)

    def position(self, job_id: str) -> int | None:
        """1 for the next; None: it does not wait."""
        return self._waiting.position(job_id)

    @property
    def load(self) -> dict[str, int]:
        """Jobs that wait, and that are drawn, by those words."""
        return {"queued": len(self._waiting), "generating": len(self._tasks)}

    async def run(self) -> None:
        """Until cancelled."""
        looked = 0.0
        while True:
            self._wake.clear()
            while not self._stopping and len(self._tasks) < self._at_once and (place := self._waiting.take(self._allowed)):
                self._begin(place)
            if time.monotonic() - looked >= OVERDUE_S and len(self._waiting):
                looked = time.monotonic()
                await self._fail_overdue()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._rest_s()):
                    await self._wake.wait()

    async def cancel(self, job_id: str) -> Job:
        """Recorded first; what was being drawn has ended when this returns. Raises `WrongStateError`, `UnknownJobError`."""
        now = time.time()
        job = await self._disk(self._store.cancel, job_id, now, now + self._keep_s)
        self._waiting.remove(job_id)
        task = self._tasks.get(job_id)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self._ended(job)
        return job

    async def stop(self, drain_s: float) -> None:
        """Begins nothing more; waits so long for what is drawn. What is left is drawn after the next start.

        Followers are let go as `lets_go` says. Called again, it waits no longer than the first call does.
        """
        self._stopping = True
        self._touch_all()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=drain_s)
        left = list(self._tasks.values())
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        self._stopped = True
        self._touch_all()

    def lets_go(self, trail: Trail) -> bool:
        """Whether a follower hears nothing more from this gateway: it stops, and the job is drawn after the next start."""
        return self._stopped or (self._stopping and trail.waiting)

    def _touch_all(self) -> None:
        for trail in self._trails.values():
            trail.touch()

    # ------------------------------------------------------------------------------------------------------------------ one job
    def _begin(self, place: Place) -> None:
        task = asyncio.create_task(self._work(place), name=place.id)
        self._tasks[place.id] = task

        def over(_: asyncio.Task[None]) -> None:
            del self._tasks[place.id]
            self._wake.set()

        task.add_done_callback(over)
        self._moved()

    async def _work(self, place: Place) -> None:
        try:
            job = await self._disk.surely(self._store.claim, place.id, time.time())
            trail = self._trails[place.id]
            trail.begun(job.attempts)
            try:
                await self._complete(job, await self._pictures(job, trail))
            except WrongStateError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the job must not be left between two states
                await self._after(error, job, begun=trail.total > 0)
        except (WrongStateError, UnknownJobError):
            await self._disk(self._results.remove, place.id)  # it was cancelled meanwhile

    async def _pictures(self, job: Job, trail: Trail) -> FaceCLIPOutput:
        drawing = await self._disk(self._spool.read, job.id)
        left_s = job.deadline - time.time()
        if left_s <= 0:
            raise late("it waited until then")
        within = replace(drawing, timeout_s=min(left_s, drawing.timeout_s))
        async with aclosing(self._draw_it(within, job.owner)) as events:
            async for event in events:
                if isinstance(event, FaceCLIPOutput):
                    self._pauses.forget(job.model)
                    return event
                trail.progress(event.step, event.total, event.preview)
        raise ApiError(500, "the server ended without pictures", code="server_error")

    async def _complete(self, job: Job, output: FaceCLIPOutput) -> None:
        now = time.time()
        self._trails[job.id].details = output.details
        manifest = await self._disk.surely(self._results.keep, job.id, output, now, now + self._keep_s)
        await self._ended(await self._disk.surely(self._store.complete, job.id, manifest, time.time(), manifest["expires"]))

    async def _after(self, error: Exception, job: Job, begun: bool) -> None:
        """Fails the job, or gives it back."""
        answer = error if isinstance(error, ApiError) else from_client(error)
        then = fate(answer, job, begun, time.time())
        if isinstance(then, ApiError):
            if answer.status == 500:
                log.error("job %s failed: %s", job.id, error, exc_info=error)
            await self._fail(job.id, then)
            return
        log.info("job %s waits again: %s", job.id, answer)
        self._pauses.begin(then.pauses, then.told_s)
        waiting = await self._disk.surely(self._store.give_back, job.id, then.lost)
        self._trails[job.id].queued()
        self._queue(waiting)

    async def _fail(self, job_id: str, answer: ApiError) -> None:
        now, error = time.time(), answer.as_json()["error"]
        if trail := self._trails.get(job_id):
            trail.error = error
        kept = {**error, "message": without_quotations(error["message"])}
        await self._ended(await self._disk.surely(self._store.fail, job_id, kept, now, now + self._keep_s))

    async def _ended(self, job: Job) -> None:
        """What was asked is deleted, followers are told."""
        if trail := self._trails.pop(job.id, None):
            trail.end()
        self._pauses.forget(job.id)
        self._moved()
        self._on_end(job)
        with contextlib.suppress(OSError):  # the next start deletes it
            await self._disk(self._spool.remove, job.id)
        if job.status is not Status.COMPLETED:
            await self._disk(self._results.remove, job.id)

    async def _fail_overdue(self) -> None:
        for job_id in await self._disk(self._store.overdue, time.time()):
            if self._waiting.remove(job_id):
                with contextlib.suppress(WrongStateError, UnknownJobError):
                    await self._fail(job_id, late("it waited until then"))

    # ------------------------------------------------------------------------------------------------------------------ waiting
    def _queue(self, job: Job) -> None:
        self._waiting.add(Place(job.id, job.number, job.priority, job.tenant, job.model))
        self._wake.set()
        self._moved()

    def _moved(self) -> None:
        """Places have changed: whoever follows a waiting job is told."""
        for trail in self._trails.values():
            if trail.waiting and trail.followers:
                trail.touch()

    def _allowed(self, place: Place) -> bool:
        return self._pauses.over(place.model, place.id)

    def _rest_s(self) -> float | None:
        """Until there may be something to do without having been woken."""
        if not len(self._waiting):
            return None
        return min([OVERDUE_S, *self._pauses.rests_s()])
