"""How much each caller has asked for: rate and concurrency in memory, pictures of the day on disk, so that a restart forgets none."""

from __future__ import annotations

import asyncio
import io
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from PIL import Image

from faceclip import ServedModel

from ..drawing import Drawing
from ..errors import ApiError, invalid
from .caller import Caller, Limits

if TYPE_CHECKING:
    from ..backends.pool import Pool

CONCURRENT_RETRY_S = 2.0


class Usage:
    """Belongs to one event loop."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
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

    async def admit(self, caller: Caller, drawing: Drawing, pool: Pool) -> None:
        """Checks what is asked against the key's limits and counts its pictures. Raises `ApiError` (400, 403, 429).

        Whoever admits a drawing that then fails gives its pictures back: `give_back`.
        """
        limits = caller.limits
        if limits.variants is not None or limits.largest_side is not None:
            await asyncio.to_thread(self._check, limits, drawing, pool.resolve(drawing.model))
        if limits.pictures_per_day is None:
            return
        counting = asyncio.create_task(self._alone(self._count, caller, pictures(drawing)))
        try:
            await asyncio.shield(counting)
        except asyncio.CancelledError:  # the caller has left; what is being counted then counts for nothing
            await asyncio.wait([counting])
            if counting.exception() is None:
                await self.give_back(caller, drawing)
            raise

    @staticmethod
    def _check(limits: Limits, drawing: Drawing, served: ServedModel) -> None:
        if limits.variants is not None and not {served.model, served.variant} & set(limits.variants):
            known = ", ".join(limits.variants)
            raise ApiError(
                403, f"model: this key may use {known}, not '{served.variant}'", code="model_not_allowed", param="model"
            )
        if limits.largest_side is None:
            return
        for side, asked in drawn_size(drawing, served).items():
            if asked > limits.largest_side:
                raise invalid(
                    side, f"this key may draw up to {limits.largest_side} pixels, got {asked}", code="size_not_allowed"
                )

    async def give_back(self, caller: Caller, drawing: Drawing) -> None:
        """Of an admitted drawing that brought no pictures."""
        if caller.limits.pictures_per_day is not None:
            await asyncio.shield(asyncio.create_task(self._alone(self._add, caller.key_id, -pictures(drawing))))

    async def _alone(self, change: Callable[..., None], *arguments: Any) -> None:
        """A change of the counts, one at a time, off the event loop. Whoever must see its end shields it from his own."""
        async with self._lock:
            await asyncio.to_thread(change, *arguments)

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

    def _count(self, caller: Caller, more: int) -> None:
        limit, used = caller.limits.pictures_per_day or 0, self.pictures_today(caller.key_id)
        if used + more > limit:
            now = datetime.now(UTC)
            midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
            raise ApiError(
                429,
                f"this key may draw {limit} pictures a day; {used} are drawn, {more} were asked for; the day ends at 00:00 UTC",
                code="daily_limit_exceeded",
                retry_after_s=(midnight - now).total_seconds(),
            )
        self._add(caller.key_id, more)

    def pictures_today(self, key_id: str) -> int:
        row = self._database.execute("SELECT pictures FROM usage WHERE key = ? AND day = ?", (key_id, _today())).fetchone()
        return 0 if row is None else int(row[0])

    def _add(self, key_id: str, pictures: int) -> None:
        with self._database:
            self._database.execute("DELETE FROM usage WHERE day < ?", (_today(),))
            self._database.execute(
                "INSERT INTO usage VALUES (?, ?, max(?, 0)) ON CONFLICT (key, day) DO UPDATE SET pictures = max(pictures + ?, 0)",
                (key_id, _today(), pictures, pictures),
            )


def drawn_size(drawing: Drawing, served: ServedModel) -> dict[str, int]:
    """Width and height that are drawn: what is asked for, else those of the picture to change, else the model's. Raises `ApiError`.

    With `padding_mask_crop` a part of the picture is drawn, at the model's size. The server takes the nearest size that it allows.
    """
    sizes = {"width": int(served.defaults.get("width") or 0), "height": int(served.defaults.get("height") or 0)}
    if drawing.image is not None and drawing.parameters.get("padding_mask_crop") is None:
        try:
            with Image.open(io.BytesIO(drawing.image)) as picture:
                sizes = dict(zip(("width", "height"), picture.size, strict=True))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise invalid("image", f"expected a picture whose size can be read, since this key limits it ({error})") from None
    return {side: int(drawing.parameters.get(side) or size) for side, size in sizes.items()}


def pictures(drawing: Drawing) -> int:
    return int(drawing.parameters.get("num_images_per_prompt") or 1)


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
