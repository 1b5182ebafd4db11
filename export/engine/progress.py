"""The progress of a build, as lines for people: nested phases with steps, as TensorRT's builder reports them.

Knows phases by their names only. On a terminal one line is rewritten; elsewhere a line is written now and then.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

_WIDTH = 118


@dataclass
class Phase:
    parent: str | None
    steps: int
    done: int = 0


class Progress:
    """Phases in progress. Its methods may be called from any thread; the builder does."""

    def __init__(self, owner: str, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._owner, self._stream, self._clock = owner, stream or sys.stderr, clock
        self._terminal = self._stream.isatty()
        self._interval_s = 0.2 if self._terminal else 15.0
        self._phases: dict[str, Phase] = {}
        self._lock = threading.Lock()
        self._start, self._shown = clock(), -self._interval_s

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._phases[phase] = Phase(parent, steps)
            self._show()

    def step(self, phase: str, step: int) -> None:
        """`step` of the phase is complete, counted from 0."""
        with self._lock:
            if phase in self._phases:
                self._phases[phase].done = step + 1
            self._show()

    def finish(self, phase: str) -> None:
        with self._lock:
            self._phases.pop(phase, None)

    def close(self) -> None:
        """Leaves the terminal's line free."""
        with self._lock:
            if self._terminal:
                self._stream.write("\r" + " " * _WIDTH + "\r")
                self._stream.flush()

    def line(self) -> str:
        """`[ 63 s] denoiser: Building 2/5 > Timing 120/431`: the newest phase, below those that it is part of."""
        names: list[str] = []
        name: str | None = next(reversed(self._phases), None)
        while name is not None and name in self._phases and name not in names:
            names.insert(0, name)
            name = self._phases[name].parent
        path = " > ".join(f"{name} {self._phases[name].done}/{self._phases[name].steps}" for name in names)
        return f"[{self._clock() - self._start:4.0f} s] {self._owner}: {path or 'preparing'}"

    def _show(self) -> None:
        now = self._clock()
        if now - self._start - self._shown < self._interval_s:
            return
        self._shown = now - self._start
        text = self.line()
        self._stream.write(f"\r{text[:_WIDTH]:{_WIDTH}}" if self._terminal else text + "\n")
        self._stream.flush()
