"""The progress of a build, for people: a bar for each phase that TensorRT's builder reports, those within it below.

Where the output is no terminal, phases of some length write a line now and then instead.
"""

from __future__ import annotations

import sys
from threading import RLock
from typing import Any, TextIO

from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

_LINE = "[{elapsed}] {desc} {n_fmt}/{total_fmt}\n"
LINES_EVERY_S = 15.0


class Progress:
    """Phases in progress, of `owner`. Its methods may be called from any thread; the builder does."""

    def __init__(self, owner: str, stream: TextIO | None = None) -> None:
        self._owner, self._stream = owner, stream or sys.stderr
        self._bars: dict[str, Any] = {}
        tqdm.set_lock(RLock())  # its own is shared with other processes, through what a killed one would leave

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        self.finish(phase)
        above = self._bars[parent].desc if parent in self._bars else f"{self._owner}:"
        how: dict[str, Any] = {"dynamic_ncols": True}
        if not self._stream.isatty():
            how = {"bar_format": _LINE, "mininterval": LINES_EVERY_S, "delay": LINES_EVERY_S, "miniters": 0, "position": 0}
        self._bars[phase] = tqdm(desc=f"{above} {phase}", total=steps, leave=False, file=self._stream, **how)

    def step(self, phase: str, step: int) -> None:
        """`step` of the phase is complete, counted from 0."""
        if (bar := self._bars.get(phase)) is not None:
            bar.update(step + 1 - bar.n)

    def finish(self, phase: str) -> None:
        if (bar := self._bars.pop(phase, None)) is not None:
            bar.close()

    def close(self) -> None:
        """Leaves the terminal's lines free."""
        for phase in reversed(list(self._bars)):
            self.finish(phase)
