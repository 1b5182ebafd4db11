"""The step loop: one thread that owns every picture in progress and batches their steps.

A `Task` is a request's pictures and a listener for what becomes of them. Tasks come in from any thread; sampling state is
touched by the loop's thread alone, so nothing in it needs a lock. Listeners run in a second thread, in order, so that sending
progress and results never delays the next denoiser call. A failing call fails the tasks that were in it and no other.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..contract.errors import Cancelled, DeadlineExceeded, NotANumber, Stopping
from ..contract.tensors import Array
from .admission import urgency
from .pictures import Batch, Denoise, Picture, advance, in_calls, select

log = logging.getLogger(__name__)


@dataclass
class Usage:
    """What a task has used so far."""

    ticks: int = 0
    """Denoiser calls that had a row of this task."""
    rows: int = 0
    """Denoiser rows of this task."""
    shared_rows: int = 0
    """Rows, of any task, in those calls."""
    denoiser_s: float = 0.0
    """Seconds of those calls."""
    skipped_steps: int = 0
    """Steps of this task's pictures that needed no call, see `step_cache`."""

    def report(self) -> dict[str, float]:
        """For the request's details."""
        return {
            "ticks": self.ticks,
            "rows": self.rows,
            "mean_rows_per_tick": round(self.shared_rows / max(self.ticks, 1), 2),
            "denoiser_s": round(self.denoiser_s, 6),
            "skipped_steps": self.skipped_steps,
        }


@dataclass(frozen=True)
class Stepped:
    """Every picture of the task has done `step` of `total` steps."""

    step: int
    total: int
    timestep: float
    latents: Array | None
    """[images, channels, height, width] after the step, where the task wants previews."""


@dataclass(frozen=True)
class Finished:
    latents: Array
    """[images, channels, height, width]."""
    usage: Usage


@dataclass(frozen=True)
class Failed:
    error: Exception


Event = Stepped | Finished | Failed


@dataclass(eq=False)
class Task:
    """Pictures of one request. The listener gets any number of `Stepped`, then one `Finished` or `Failed`."""

    pictures: list[Picture]
    listener: Callable[[Event], None]
    priority: str = "interactive"
    deadline: float | None = None
    """Monotonic seconds."""
    wants_steps: bool = False
    wants_previews: bool = False
    cancelled: bool = False
    """May be set by any thread; obeyed before the next step."""
    since: float = field(default_factory=time.monotonic)
    usage: Usage = field(default_factory=Usage)

    @property
    def step(self) -> int:
        return min(picture.step for picture in self.pictures)

    @property
    def done(self) -> bool:
        return all(picture.done for picture in self.pictures)

    def latents(self) -> Array:
        """Latents of all pictures, copied."""
        return np.concatenate([picture.latents.numpy() for picture in self.pictures])

    def result(self) -> Finished | Failed:
        """What becomes of a task whose pictures are done."""
        latents = self.latents()
        if np.isfinite(latents).all():
            return Finished(latents, self.usage)
        return Failed(
            NotANumber(
                "latents: the last step left values that are not numbers; try another scheduler or fewer scheduler options, less"
                " guidance, or a denoiser of a wider precision"
            )
        )


@dataclass(frozen=True)
class Tick:
    """What one round of the denoiser did, for metrics; it is one call, or several where a picture has more rows than a call."""

    rows: int
    tasks: int
    denoiser_s: float
    own_s: float
    """Everything else since the previous call ended or work began: the scheduler's own time."""


class Observer(Protocol):
    """Hears what the loop does, in the listeners' thread."""

    def tick(self, tick: Tick) -> None: ...

    def load(self, active: int, waiting: int) -> None: ...


class StepLoop:
    """Runs tasks until `stop`. `max_rows`: largest batch of a denoiser call; `max_active`: tasks that share the ticks."""

    def __init__(self, denoise: Denoise, max_rows: int, max_active: int, observer: Observer | None = None) -> None:
        self._denoise = in_calls(denoise, max_rows)
        self._max_rows = max_rows
        self._max_active = max_active
        self._observer = observer
        self._load = (0, 0)
        self._incoming: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._outgoing: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._active: list[Task] = []
        self._waiting: list[Task] = []
        self._batch = Batch()
        self._ticks = 0
        self._round_at: float | None = None
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._run, "step-loop"), (self._deliver, "step-listeners"))
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, task: Task) -> None:
        """Adds a task; it joins at the next tick, or waits for a place."""
        self._incoming.put(task)

    @property
    def threads_alive(self) -> bool:
        """Both of them; without one of them nobody gets an answer."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def stalled_s(self) -> float:
        """Seconds since the loop came round last; 0 while it has nothing to do. A denoiser call is a part of one round."""
        since = self._round_at
        return 0.0 if since is None else time.monotonic() - since

    def stop(self) -> None:
        """Fails what is in progress and ends the threads."""
        self._incoming.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        own_since = time.monotonic()
        while True:
            idle = not self._active and not self._waiting
            self._round_at = None if idle else time.monotonic()
            if not self._take_in(block=idle):
                break
            self._round_at = time.monotonic()
            if idle:
                own_since = time.monotonic()
            self._drop_ended()
            self._promote()
            self._observe_load()
            if self._active:
                own_since = self._tick(own_since)
        for task in self._active + self._waiting:
            self._tell(task, Failed(Stopping("the server is stopping")))
        self._outgoing.put(None)

    def _take_in(self, block: bool) -> bool:
        """Moves what has come in to the waiting tasks; False when the loop is to end."""
        while True:
            try:
                task = self._incoming.get(block=block)
            except queue.Empty:
                return True
            if task is None:
                return False
            self._waiting.append(task)
            block = False

    def _drop_ended(self) -> None:
        """Ends tasks that were cancelled or whose time is up, before any more work is done for them."""
        now = time.monotonic()
        for tasks in (self._active, self._waiting):
            for task in list(tasks):
                if task.cancelled:
                    error: Exception = Cancelled(f"cancelled after {task.step} steps")
                elif task.deadline is not None and now > task.deadline:
                    error = DeadlineExceeded(
                        f"the request's timeout ran out after {task.step} steps; allow more time or fewer steps"
                    )
                else:
                    continue
                tasks.remove(task)
                self._batch.forget()
                self._tell(task, Failed(error))

    def _promote(self) -> None:
        self._waiting.sort(key=lambda task: urgency(task.priority, task.since))
        while self._waiting and len(self._active) < self._max_active:
            self._active.append(self._waiting.pop(0))

    def _tick(self, own_since: float) -> float:
        """One denoiser call and what follows from it; the time when the call ended."""
        owner = {id(picture): task for task in self._active for picture in task.pictures}
        chosen = select((picture for task in self._active for picture in task.pictures), self._max_rows)
        served = {id(owner[id(picture)]): owner[id(picture)] for picture in chosen}.values()
        before = {id(task): task.step for task in served}
        called = ended = time.monotonic()
        try:
            inputs = self._batch.inputs(chosen)
            rows = len(inputs["timestep"])
            called = time.monotonic()
            noise_pred = self._denoise(inputs)
            ended = time.monotonic()
            for picture in chosen:
                owner[id(picture)].usage.rows += len(picture.chain.branches)
            advance(chosen, noise_pred, self._ticks)
        except Exception as error:
            log.error("a denoiser call failed", exc_info=error)
            self._batch.forget()
            for task in served:
                self._active.remove(task)
                self._tell(task, Failed(error))
            return time.monotonic()
        self._ticks += 1
        for task in served:
            task.usage.ticks += 1
            task.usage.shared_rows += rows
            task.usage.denoiser_s += ended - called
            task.usage.skipped_steps = sum(picture.cache.skipped for picture in task.pictures)
            if task.wants_steps and task.step > before[id(task)]:
                self._tell(task, self._stepped(task))
            if task.done:
                self._active.remove(task)
                self._batch.forget()
                self._tell(task, task.result())
        if self._observer is not None:
            tick, observer = Tick(rows, len(served), ended - called, called - own_since), self._observer
            self._outgoing.put(lambda: observer.tick(tick))
        self._observe_load()
        return ended

    def _observe_load(self) -> None:
        load = (len(self._active), len(self._waiting))
        if self._observer is not None and load != self._load:
            observer = self._observer
            self._outgoing.put(lambda: observer.load(*load))
        self._load = load

    @staticmethod
    def _stepped(task: Task) -> Stepped:
        picture = min(task.pictures, key=lambda picture: picture.step)
        timestep = float(picture.scheduler.timesteps[picture.step - 1])
        return Stepped(picture.step, len(picture.chains), timestep, task.latents() if task.wants_previews else None)

    def _tell(self, task: Task, event: Event) -> None:
        self._outgoing.put(lambda: task.listener(event))

    def _deliver(self) -> None:
        while (deliver := self._outgoing.get()) is not None:
            try:
                deliver()
            except Exception:  # a listener's failure is its own; the others still want to hear
                log.exception("a listener failed")
