"""How much each caller has asked for: rate and concurrency in memory, pictures of the day on disk, so that a restart forgets none.

Pictures of answers are counted here, before they are drawn. Those of jobs are counted by the jobs themselves, which know how each ended.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from ..drawing import Drawing
from ..errors import ApiError
from .caller import Caller
from .permission import check

if TYPE_CHECKING:
    from ..backends.pool import Pool

CONCURRENT_RETRY_S = 2.0


class Usage:
    """Belongs to one event loop."""

    def __init__(self, database: sqlite3.Connection, of_jobs: Callable[[str, float], Awaitable[int]]) -> None:
        """`of_jobs(key id, seconds since 1970)`: pictures of the key's jobs that were taken since then."""
        self._database = database
        self._of_jobs = of_jobs
        self._lock = asyncio.Lock()
        self._drawing: Counter[str] = Counter()
        self._tokens: dict[str, tuple[float, float]] = {}
        """Key -> requests that it may send at once, and when that was so."""

    def check_rate(self, caller: Caller) -> None:
        """Counts a request. Raises `ApiError` (429)."""
        rate = caller.limits.requests_per_minute
        if rate is None:
            return
        now = time.monotonic()
        left, since = self._tokens.get(caller.key_id, (float(rate), now))
        left = min(float(rate), left + (now - since) * rate / 60)
        if left < 1:
            wait_s = (1 - left) * 60 / rate
            raise ApiError(
                429,
                f"this key may send {rate} requests a minute; wait {wait_s:.1f} s",
                code="rate_limit_exceeded",
                retry_after_s=wait_s,
            )
        self._tokens[caller.key_id] = (left - 1, now)

    async def admit(self, caller: Caller, drawing: Drawing, pool: Pool) -> date:
        """Checks what is asked against the key's limits and counts its pictures; the day that they count for. Raises `ApiError`
        (400, 403, 429).

        Whoever admits a drawing that then fails gives its pictures back to that day: `give_back`.
        """
        counting = asyncio.create_task(self._admit(caller, drawing, pool))
        try:
            return await asyncio.shield(counting)
        except asyncio.CancelledError:  # the caller has left; what is being counted then counts for nothing
            await asyncio.wait([counting])
            if counting.exception() is None:
                await self.give_back(caller, drawing, counting.result())
            raise

    @asynccontextmanager
    async def room(self, caller: Caller, drawing: Drawing) -> AsyncGenerator[date, None]:
        """The day that has room for its pictures. Within, they are counted: here, or by a job that is recorded. Raises `ApiError` (429)."""
        limits = caller.limits
        if limits.pictures_per_day is None:
            yield today()
            return
        async with self._lock:
            day = today()
            used = await asyncio.to_thread(self.of_answers, caller.key_id, day)
            used += await self._of_jobs(caller.key_id, _begin(day).timestamp())
            if used + drawing.pictures > limits.pictures_per_day:
                raise _enough(limits.pictures_per_day, used, drawing.pictures)
            yield day

    async def _admit(self, caller: Caller, drawing: Drawing, pool: Pool) -> date:
        await check(caller.limits, drawing, pool)
        async with self.room(caller, drawing) as day:
            if caller.limits.pictures_per_day is not None:
                await asyncio.to_thread(self._add, caller.key_id, day, drawing.pictures)
            return day

    async def give_back(self, caller: Caller, drawing: Drawing, day: date) -> None:
        """Of an admitted drawing that brought no pictures. `day`: for which they were counted."""
        if caller.limits.pictures_per_day is not None:
            await asyncio.shield(asyncio.create_task(self._give_back(caller.key_id, day, drawing.pictures)))

    async def _give_back(self, key_id: str, day: date, pictures: int) -> None:
        async with self._lock:
            await asyncio.to_thread(self._subtract, key_id, day, pictures)

    @asynccontextmanager
    async def slot(self, caller: Caller) -> AsyncGenerator[None, None]:
        """One of the drawings that a caller may have at a time. Raises `ApiError` (429)."""
        limit = caller.limits.concurrent
        if limit is not None and self._drawing[caller.key_id] >= limit:
            raise ApiError(
                429,
                f"this key may draw {limit} at a time; wait until one has ended",
                code="concurrency_limit_exceeded",
                retry_after_s=CONCURRENT_RETRY_S,
            )
        self._drawing[caller.key_id] += 1
        try:
            yield
        finally:
            self._drawing[caller.key_id] -= 1

    def of_answers(self, key_id: str, day: date) -> int:
        """Pictures of answers and streams, drawn or being drawn."""
        query = "SELECT pictures FROM usage WHERE key = ? AND day = ?"
        row = self._database.execute(query, (key_id, day.isoformat())).fetchone()
        return 0 if row is None else int(row[0])

    def _add(self, key_id: str, day: date, pictures: int) -> None:
        with self._database:
            self._database.execute("DELETE FROM usage WHERE day < ?", (day.isoformat(),))
            self._database.execute(
                "INSERT INTO usage VALUES (?, ?, ?) ON CONFLICT (key, day) DO UPDATE SET pictures = pictures + excluded.pictures",
                (key_id, day.isoformat(), pictures),
            )

    def _subtract(self, key_id: str, day: date, pictures: int) -> None:
        """Of a day that is over and forgotten there is nothing to subtract."""
        with self._database:
            self._database.execute(
                "UPDATE usage SET pictures = pictures - ? WHERE key = ? AND day = ?", (pictures, key_id, day.isoformat())
            )


def _enough(limit: int, used: int, more: int) -> ApiError:
    left = _begin(today() + timedelta(days=1)) - datetime.now(UTC)
    return ApiError(
        429,
        f"this key may draw {limit} pictures a day; {used} are drawn or wait, {more} were asked for; the day ends at 00:00 UTC",
        code="daily_limit_exceeded",
        retry_after_s=left.total_seconds(),
    )


def today() -> date:
    """In UTC."""
    return datetime.now(UTC).date()


def _begin(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC)
