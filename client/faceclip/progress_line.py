"""One line on a terminal that tells how far a request is: elapsed seconds, and a bar once steps are known."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TextIO

from .result import Progress

_BAR_CELLS = 24
_TICK_S = 0.1
_SPINNER = "|/-\\"


class ProgressLine:
    """A context manager. Writes nothing if `out` is not a terminal, and leaves an empty line behind."""

    def __init__(self, out: TextIO, visible: bool = True) -> None:
        self._out = out
        self._visible = visible and out.isatty()
        self._progress: Progress | None = None
        self._done = threading.Event()
        self.drawn = threading.Event()
        """Set when the latest step is on the screen."""
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def update(self, progress: Progress) -> None:
        """The step just done; drawn with the next tick."""
        self._progress = progress
        self.drawn.clear()

    def __enter__(self) -> ProgressLine:
        if self._visible:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._done.set()
        if self._visible:
            self._thread.join()
            self._out.write("\r\033[K")
            self._out.flush()

    def _draw(self) -> None:
        start, tick = time.monotonic(), 0
        while not self._done.is_set():
            progress = self._progress
            self._out.write(f"\r\033[K{describe_progress(progress, time.monotonic() - start, tick)}")
            self._out.flush()
            tick += 1
            if progress is self._progress:
                self.drawn.set()
            self._done.wait(_TICK_S)


def describe_progress(progress: Progress | None, elapsed_s: float, tick: int) -> str:
    """`[######------] 12/50 steps  3.4 s`, or a spinner and the time before the first step."""
    if progress is None or progress.total < 1:
        return f"{_SPINNER[tick % len(_SPINNER)]} {elapsed_s:.1f} s"
    filled = min(_BAR_CELLS * progress.step // progress.total, _BAR_CELLS)
    return f"[{'#' * filled}{'-' * (_BAR_CELLS - filled)}] {progress.step}/{progress.total} steps  {elapsed_s:.1f} s"
