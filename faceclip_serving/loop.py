"""The step loop: one thread that owns every picture in progress and batches their steps.

A `Task` is a request's pictures with what to call when they are done. Tasks come in from any thread; all sampling state is
touched by the loop's thread alone, so nothing in it needs a lock. A failing denoiser call fails the tasks that were in it and
no other.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .sampling import Batch, Denoise, Picture, advance, finished_latents, select
from .tensors import Array

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Task:
    """Pictures of one request. Exactly one of `finish` and `fail` is called, once, from the loop's thread."""

    pictures: list[Picture]
    finish: Callable[[Array, Progress], None]
    fail: Callable[[Exception], None]
    progress: Progress = field(default_factory=lambda: Progress())


@dataclass
class Progress:
    """What a task has used so far."""

    ticks: int = 0
    """Denoiser calls that had a row of this task."""
    rows: int = 0
    """Denoiser rows of this task."""
    shared_rows: int = 0
    """Rows, of any task, in those calls."""
    denoise_s: float = 0.0
    """Seconds of those calls."""

    def report(self) -> dict[str, float]:
        """For the request's details."""
        return {
            "ticks": self.ticks,
            "rows": self.rows,
            "mean_rows_per_tick": round(self.shared_rows / max(self.ticks, 1), 2),
            "denoiser_s": round(self.denoise_s, 6),
        }


class StepLoop:
    """Runs tasks until `stop`. `max_rows`: largest batch of one denoiser call."""

    def __init__(self, denoise: Denoise, max_rows: int) -> None:
        self._denoise = denoise
        self._max_rows = max_rows
        self._incoming: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="step-loop", daemon=True)
        self._thread.start()

    def submit(self, task: Task) -> None:
        """Adds a task; it joins at the next tick."""
        self._incoming.put(task)

    def stop(self) -> None:
        """Fails what is in progress and ends the thread."""
        self._incoming.put(None)
        self._thread.join()

    def _run(self) -> None:
        active: list[Task] = []
        batch, tick = Batch(), 0
        while self._admit(active):
            owner = {id(picture): task for task in active for picture in task.pictures}
            chosen = select((picture for task in active for picture in task.pictures), self._max_rows)
            served = list(dict.fromkeys(owner[id(picture)] for picture in chosen))
            try:
                inputs = batch.inputs(chosen)
                started = time.monotonic()
                noise_pred = self._denoise(inputs)
                seconds = time.monotonic() - started
                for task in served:
                    task.progress.ticks += 1
                    task.progress.rows += sum(len(p.chain.branches) for p in chosen if owner[id(p)] is task)
                    task.progress.shared_rows += len(noise_pred)
                    task.progress.denoise_s += seconds
                advance(chosen, noise_pred, tick)
            except Exception as error:
                log.exception("a denoiser call failed")
                batch.forget()
                for task in served:
                    active.remove(task)
                    task.fail(error)
                continue
            tick += 1
            for task in served:
                if all(picture.done for picture in task.pictures):
                    active.remove(task)
                    batch.forget()
                    task.finish(finished_latents(task.pictures), task.progress)
        for task in active:
            task.fail(RuntimeError("the server is stopping"))

    def _admit(self, active: list[Task]) -> bool:
        """Takes what has come in, waiting if there is nothing to do; False when the loop is to end."""
        while True:
            try:
                task = self._incoming.get(block=not active)
            except queue.Empty:
                return True
            if task is None:
                return False
            active.append(task)
