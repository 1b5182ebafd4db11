"""`Jobs`: the store, the runner and the webhooks of one data folder, together; what the routes call."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from faceclip import FaceCLIPOutput

from ..drawing import Drawing
from .failures import StoreUnwritableError, UnknownJobError, WrongStateError
from .following import followed
from .kept.disk import Disk
from .kept.folder import Folder
from .kept.recovery import recover
from .kept.spool import digest
from .records import Job, NewJob
from .runner import Draw, Runner
from .states import Status
from .trail import Event, EventId
from .webhooks.destinations import Destinations
from .webhooks.webhook import BackOff, Deliveries, Sender

DRAWN_SEEDS = 2**52
"""As the client's: exact wherever JSON's numbers are doubles."""


@dataclass(frozen=True)
class JobSettings:
    """Seconds, and counts of jobs."""

    deadline_s: float = 3600.0
    """After acceptance, where the request says no time of its own."""
    keep_s: float = 86400.0
    """How long results and ended jobs are kept; then they are 410."""
    forget_s: float = 7 * 86400.0
    """How long after that a job is known at all; then it is 404, and its idempotency key may be used again."""
    at_once: int = 8
    """Drawings at a time."""
    most: int = 10_000
    """Jobs that wait or are drawn; more are refused."""
    webhook_hosts: tuple[str, ...] = ()
    webhook_networks: tuple[str, ...] = ()
    back_off: BackOff = field(default_factory=BackOff)


class Jobs:
    """`draw`: as `Draw`. `event_of(job)`: what a webhook is told of an ended job."""

    def __init__(self, folder: Path, settings: JobSettings, draw: Draw, event_of: Callable[[Job], Mapping[str, Any]]) -> None:
        """Takes the folder, and brings it in order after whatever end the last gateway had. Raises `FolderInUseError`."""
        self.settings = settings
        try:
            self._folder = Folder(folder, settings.most)
        except OSError as error:
            raise StoreUnwritableError(f"data folder {folder}: expected one that can be written ({error})") from error
        self.results, self._spool, self._store = self._folder.results, self._folder.spool, self._folder.store
        self._disk = Disk()
        self._destinations = Destinations(settings.webhook_hosts, tuple(map(ipaddress.ip_network, settings.webhook_networks)))
        self._sender = Sender(self._destinations, self._folder.webhook_secret)
        self._deliveries = Deliveries(self._ask_store, self._sender, event_of, settings.back_off)
        self.runner = Runner(
            draw, self._disk, self._store, self._spool, self.results, settings.at_once, settings.keep_s, self._on_end
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Takes up what the last gateway has left, then works until `close`."""
        for job in await self._disk(recover, self._store, self._spool, self.results):
            self.runner.add(job)
        self._tasks = [asyncio.create_task(each) for each in (self.runner.run(), self._deliveries.run(), self._sweep())]

    async def drain(self, drain_s: float) -> None:
        """Before `close`, which then waits no more: nothing is begun, what is drawn has so long, followers are let go."""
        await self.runner.stop(drain_s)

    async def close(self, drain_s: float = 0.0) -> None:
        """Waits so long for what is drawn; what has not ended goes on after the next start."""
        await self.drain(drain_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sender.close()
        await self._disk(self._folder.close)
        self._disk.close()

    async def accept(
        self,
        drawing: Drawing,
        owner: str,
        kind: str,
        webhook_url: str | None = None,
        idempotency_key: str | None = None,
        deadline_s: float | None = None,
    ) -> tuple[Job, bool]:
        """A job that is on the disk, and whether it is a new one. Seed and request id are fixed from here on: the latter is the job's.

        `webhook_url` has passed `check_webhook`. Raises `KeyReusedError`, `StoreFullError`, `StoreUnwritableError`.
        """
        now, job_id = time.time(), f"job_{uuid.uuid4().hex}"
        asked = await asyncio.to_thread(digest, drawing, kind, webhook_url or "")
        seed = drawing.parameters.get("seed")
        chosen = {**drawing.parameters, "seed": secrets.randbelow(DRAWN_SEEDS) if seed is None else seed}
        new = NewJob(
            id=job_id,
            owner=owner,
            tenant=drawing.tenant,
            kind=kind,
            priority=drawing.priority,
            model=drawing.model,
            created=now,
            deadline=now + (deadline_s or self.settings.deadline_s),
            digest=asked,
            pictures=drawing.pictures,
            webhook_url=webhook_url,
            idempotency_key=idempotency_key,
        )
        job, is_new = await asyncio.shield(
            asyncio.ensure_future(self._accept(new, replace(drawing, parameters=chosen, request_id=job_id)))
        )
        return job, is_new

    async def known(self, drawing: Drawing, owner: str, kind: str, webhook_url: str | None, idempotency_key: str) -> Job | None:
        """The job that `accept` of the same would answer with; None: it would be a new one. Raises `KeyReusedError`."""
        asked = await asyncio.to_thread(digest, drawing, kind, webhook_url or "")
        return await self._disk(self._store.known, owner, idempotency_key, asked)

    async def check_webhook(self, url: str) -> None:
        """Raises `WebhookRefusedError`. Where its host cannot be found now, the delivery sees."""
        parts = self._destinations.check(url)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(2.0):
                await self._destinations.resolve(str(parts.hostname), parts.port or 443)

    async def pictures(self, owner: str, since: float) -> int:
        """Of the owner's jobs that were accepted since then (seconds since 1970); those that failed or were cancelled bring none."""
        return await self._disk(self._store.pictures, owner, since)

    async def get(self, job_id: str, owner: str) -> Job:
        """Raises `UnknownJobError`."""
        job = await self._disk(self._store.get, job_id)
        if job.owner != owner:
            raise UnknownJobError(job_id)
        return job

    async def page(self, owner: str, limit: int, below: str | None = None) -> list[Job]:
        """The newest first; older than the job `below`."""
        number = None if below is None else (await self.get(below, owner)).number
        return await self._disk(self._store.page, owner, limit, number)

    async def cancel(self, job_id: str, owner: str) -> Job:
        """The cancelled job; cancelled again, it is the same. Raises `WrongStateError` where it has ended otherwise."""
        await self.get(job_id, owner)
        try:
            return await self.runner.cancel(job_id)
        except WrongStateError as error:
            if error.status is not Status.CANCELLED:
                raise
            return await self.get(job_id, owner)

    def follow(self, job_id: str, owner: str, after: EventId) -> AsyncGenerator[Event | Job, None]:
        """What happens to a job after the event `after`; at last the job, ended. Ends without it when the gateway stops before.

        `queued` comes again whenever the place has changed.
        """
        return followed(job_id, after, self.runner, partial(self.get, job_id, owner))

    async def keep(self, output: FaceCLIPOutput) -> list[str]:
        """Keeps pictures of no job, for as long as those of jobs; their addresses. Raises `OSError`."""
        now, result_id = time.time(), f"img_{uuid.uuid4().hex}"
        manifest = await self._disk(self.results.keep, result_id, output, now, now + self.settings.keep_s)
        return self.results.addresses(result_id, manifest)

    async def counts(self) -> dict[Status, int]:
        """Jobs in each state."""
        return await self._disk(self._store.counts)

    # ---------------------------------------------------------------------------------------------------------------- on the disk
    async def _ask_store(self, name: str, *arguments: Any) -> Any:
        return await self._disk(getattr(self._store, name), *arguments)

    async def _accept(self, new: NewJob, drawing: Drawing) -> tuple[Job, bool]:
        """Not ended by a caller who hangs up: what was recorded is also queued."""
        job, is_new = await self._disk(self._write, new, drawing)
        if is_new:
            self.runner.add(job)
        return job, is_new

    def _write(self, new: NewJob, drawing: Drawing) -> tuple[Job, bool]:
        """What is asked goes first: a job that is recorded can be drawn."""
        is_new = False
        try:
            self._spool.keep(new.id, drawing)
            job, is_new = self._store.accept(new)
        except OSError as error:
            raise StoreUnwritableError(
                f"the job cannot be kept: {error.strerror}; free space on the gateway's disk, or make it writable"
            ) from error
        finally:
            if not is_new:
                with contextlib.suppress(OSError):
                    self._spool.remove(new.id)
        return job, is_new

    async def _sweep(self) -> None:
        while True:
            with contextlib.suppress(StoreUnwritableError, OSError):
                now = time.time()
                for job_id in await self._disk(self._store.sweep, now, self.settings.forget_s):
                    await self._disk(self.results.remove, job_id)
                await self._disk(self.results.sweep, now)
            await asyncio.sleep(min(60.0, self.settings.keep_s / 4))

    def _on_end(self, job: Job) -> None:
        if job.webhook_url is not None:
            self._deliveries.wake()
