"""The one thread that writes in the data folder, so that nothing else waits for the disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .. import pauses
from ..failures import StoreUnwritableError

_Value = TypeVar("_Value")
log = logging.getLogger(__name__)


class Disk:
    """`await disk(function, *arguments)`: calls follow one another in their order."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jobs")

    async def __call__(self, function: Callable[..., _Value], *arguments: Any) -> _Value:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def surely(self, function: Callable[..., _Value], *arguments: Any) -> _Value:
        """The same, again and again while the disk cannot be written: what was drawn must not be lost for that."""
        pause_s = pauses.FIRST_PAUSE_S
        while True:
            try:
                return await self(function, *arguments)
            except (OSError, StoreUnwritableError) as error:
                log.error("jobs wait for the disk: %s", error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, pauses.LONGEST_PAUSE_S)

    def close(self) -> None:
        """After the last call."""
        self._thread.shutdown()
