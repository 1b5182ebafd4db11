"""Where texts are translated for asyncio: in threads of their translator, so that a slow one holds up nobody who does not need it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

from . import MAX_CHARACTERS, detect
from .translators import service_url

_ASKING = 64
"""Threads that wait for a service: they take little but memory."""
_WORKING = 4
"""Threads of what translates a language in this process."""
_Result = TypeVar("_Result")


async def apart(texts: Iterable[str], prompt_language: str, function: Callable[..., _Result], /, *args: Any) -> _Result:
    """The result of a function that translates these texts. Where none of them is to be translated, it runs in asyncio's usual threads.

    Who is cancelled before his turn begins nothing.
    """
    foreign = (detect(text) for text in texts if len(text) <= MAX_CHARACTERS) if prompt_language == "auto" else ()
    language = next((each for each in foreign if each != "en"), "")
    threads = _threads("" if service_url() else language) if language else None
    return await asyncio.get_running_loop().run_in_executor(threads, function, *args)


@cache
def _threads(language: str) -> ThreadPoolExecutor:
    """Those of a language; empty: of the service."""
    return ThreadPoolExecutor(_WORKING if language else _ASKING, f"translator-{language or 'service'}")
