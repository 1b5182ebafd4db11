"""How this process takes memory from glibc."""

from __future__ import annotations

import ctypes
import os

ARENAS = 2
"""As the server's models have. Threads share them; of Python's, one runs at a time."""
_M_ARENA_MAX = -8
"""Of glibc's malloc.h."""


def few_arenas() -> None:
    """Before the first thread. Each of many (gRPC's, those that read photographs) would keep what it has freed in an arena of its own, of
    which glibc makes up to eight a core. Where the environment has MALLOC_ARENA_MAX, that holds; without glibc nothing is done."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, ARENAS)
