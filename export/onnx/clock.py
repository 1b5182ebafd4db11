"""How long each phase of a longer piece of work takes, told while it happens and kept for its record."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Tells what is going on, with the time since the start, and keeps how long each phase took."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.seconds: dict[str, float] = {}
        self._start = time.monotonic()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        print(f"[{begin - self._start:6.1f} s] {self.owner}: {name}", file=sys.stderr, flush=True)
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - begin, 2)
