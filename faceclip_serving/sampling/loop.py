"""The step loop: owns every picture in progress and batches their steps, in one thread.

Which requests are active, and what becomes of them, `life` decides; the loop asks it before every call of the denoiser. Sampling
state is touched by the loop's thread alone, so nothing in it needs a lock. A request fails alone: a failing call of several is
tried again for each, and whatever a picture's scheduler raises is that picture's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

import numpy as np

from ..contract.errors import NotANumber
from ..contract.tensors import Array
from .life import Lives
from .picture import Picture
from .pictures import Batch, Denoise, advance, finished_latents, in_calls
from .requests import Counts, Request
from .turns import Choices, Group

log = logging.getLogger(__name__)


@dataclass
class Usage:
    """What a request has used so far."""

    ticks: int = 0
    """Rounds of the denoiser that had a row of this request."""
    began: float = 0.0
    """When the first of them began, monotonic seconds."""
    ended: float = 0.0
    """When the last of them had ended, of the pictures as a whole."""
    decoded: float = 0.0
    """When these were decoded, where faces in them are drawn again."""
    rows: int = 0
    """Denoiser rows of this request."""
    shared_rows: int = 0
    """Rows, of any request, in those rounds."""
    denoiser_s: float = 0.0
    """Seconds of those calls."""
    skipped_steps: int = 0
    """Steps of this request's pictures that needed no call, see `step_cache`."""

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
    """Every picture of the request has done `step` of `total` steps."""

    step: int
    total: int
    timestep: float
    latents: Array | None
    """[1, channels, height, width] of the first picture after the step, where previews are wanted."""


@dataclass(frozen=True)
class Finished:
    latents: Array
    """[images, channels, height, width]."""
    usage: Usage
    look: Look | None = None
    """What is done with the pictures, once they are decoded, in a stage of its own."""
    into: Callable[[Array], Array] | None = None
    """Puts what is decoded, parts of pictures, into those: [images, 3, height, width]."""


Look = Callable[[Array, Finished], "Work | None"]
"""Decoded pictures [images, 3, height, width] in [0, 1], and what they were -> the parts that are drawn again; None: there are none."""


@dataclass(eq=False)
class Work:
    """The pictures of one request."""

    pictures: list[Picture]
    wants_steps: bool = False
    wants_previews: bool = False
    usage: Usage = field(default_factory=Usage)
    before: int = 0
    """Steps that were done before, of the pictures that these are parts of."""
    after: int = 0
    """Steps that may come after these."""
    look: Look | None = None
    into: Callable[[Array], Array] | None = None
    """As in `Finished`."""
    shown: Callable[[], Array] | None = None
    """Latents for previews [1, channels, height, width]; None: those of the first picture."""

    def steps_done(self) -> int:
        """Steps that all pictures have done, with those before."""
        return self.before + min(picture.step for picture in self.pictures)

    @property
    def done(self) -> bool:
        return all(picture.done for picture in self.pictures)

    def stepped(self) -> Stepped:
        """The step that all pictures have done."""
        picture = min(self.pictures, key=lambda picture: picture.step)
        timestep = picture.schedule.timesteps[picture.step - 1]
        shown = self.shown or self.pictures[0].latents.copy
        total = self.before + len(picture.chains) + self.after
        return Stepped(self.before + picture.step, total, timestep, shown() if self.wants_previews else None)

    def finished(self) -> Finished:
        """What the pictures have become. Raises `NotANumber`."""
        latents = finished_latents(self.pictures)
        if not np.isfinite(latents).all():
            raise NotANumber(
                "latents: the last step left values that are not numbers; try another scheduler or fewer scheduler options, less"
                " guidance, or a denoiser of a wider precision"
            )
        self.usage.skipped_steps += sum(picture.cache.skipped for picture in self.pictures)
        return Finished(latents, self.usage, self.look, self.into)


@dataclass
class Ticks:
    """What some rounds of the denoiser did, for metrics; each is one call, or several where a picture has more rows than a call."""

    ticks: int = 0
    rows: int = 0
    requests: int = 0
    denoiser_s: float = 0.0
    own_s: float = 0.0
    """Everything else since the previous call ended or work began: the scheduler's own time."""


TELL_S = 0.25
"""Seconds of work after which an observer hears of it: to count costs more than a step does."""


class Observer(Protocol):
    """Hears what the loop does, in the messages' thread."""

    def ticks(self, ticks: Ticks) -> None: ...

    def load(self, counts: Counts) -> None: ...


class StepLoop:
    """Works for the active requests of `lives` until they are over. `max_rows`: largest batch of a denoiser call."""

    def __init__(self, lives: Lives, denoise: Denoise, max_rows: int, observer: Observer | None = None) -> None:
        self._lives = lives
        self._denoise = in_calls(self._timed(denoise), max_rows)
        self._denoiser_s = 0.0
        self._observer = observer
        if observer is not None:
            lives.on_change = observer.load
        self._batch = Batch()
        self._choices = Choices(max_rows)
        self._ticks = 0
        self._untold = Ticks()
        self._round_at: float | None = None
        self._round_s = 0.0

    @property
    def stalled_s(self) -> float:
        """Seconds since the loop came round last; 0 while it has nothing to do. A denoiser call is a part of one round."""
        since = self._round_at
        return 0.0 if since is None else time.monotonic() - since

    @property
    def round_s(self) -> float:
        """Seconds of the last round of the denoiser; 0 before the first."""
        return self._round_s

    def run(self) -> None:
        """Returns when `lives` are over."""
        own_since = 0.0
        while (requests := self._lives.round(self._idle)) is not None:
            now = time.monotonic()
            if self._round_at is None:  # it comes from doing nothing
                own_since = now
            self._round_at = now
            own_since = self._tick(requests, own_since)

    def _idle(self) -> None:
        self._round_at = None
        self._batch.forget()
        self._choices.forget()
        self._tell_ticks()

    def _tick(self, requests: list[Request], own_since: float) -> float:
        """One round of the denoiser and what follows from it; the time when its last call ended."""
        groups = self._choices.next(requests)
        if not groups:  # all have ended since
            return own_since
        before = self._denoiser_s
        predicted, rows = self._predictions(groups)
        ended = time.monotonic()
        seconds = self._denoiser_s - before
        self._ticks += 1
        self._round_s = seconds
        for (request, pictures), noise_pred in zip(groups, predicted, strict=True):
            work: Work | None = request.work  # gone where the request has ended meanwhile
            if work is None:
                continue
            try:
                if isinstance(noise_pred, Exception):
                    raise noise_pred
                self._advance(request, work, pictures, noise_pred, rows, seconds)
            except Exception as error:  # whatever it is, it is this request's
                log.error("a request failed in the sampler", exc_info=error)
                self._lives.give_up(request.place, error)
        del predicted, noise_pred  # an error's traceback holds this frame, and so would all that failed be held
        untold = self._untold
        untold.ticks += 1
        untold.rows += rows
        untold.requests += len(groups)
        untold.denoiser_s += seconds
        untold.own_s += ended - own_since - seconds
        if untold.denoiser_s + untold.own_s > TELL_S:
            self._tell_ticks()
        return ended

    def _tell_ticks(self) -> None:
        untold, self._untold = self._untold, Ticks()
        if self._observer is not None and untold.ticks:
            observer = self._observer
            self._lives.messages.put(lambda: observer.ticks(untold))

    def _timed(self, denoise: Denoise) -> Denoise:
        """The denoiser, whose seconds are counted: what else a tick takes is the loop's own."""

        def timed(inputs: Mapping[str, Array]) -> Array:
            started = time.monotonic()
            try:
                return denoise(inputs)
            finally:
                self._denoiser_s += time.monotonic() - started

        return timed

    def _predictions(self, groups: list[Group]) -> tuple[list[Array | Exception], int]:
        """For each group its rows of the denoiser's output, or why there are none; and the rows of all.

        If the call for all fails, each is tried alone: only those fail that fail alone.
        """
        everything = [picture for _, pictures in groups for picture in pictures]
        counts = [sum(len(picture.rows) for picture in pictures) for _, pictures in groups]
        try:
            noise_pred = self._denoise(self._batch.inputs(everything))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told to whom it concerns
            self._batch.forget()
            if len(groups) == 1:
                return [error], counts[0]
            log.warning("a denoiser call for %d requests failed, each is tried alone: %s", len(groups), error)
            return [self._predictions([group])[0][0] for group in groups], sum(counts)
        ends = accumulate(counts)
        return [noise_pred[end - count : end] for end, count in zip(ends, counts, strict=True)], sum(counts)

    def _advance(
        self, request: Request, work: Work, pictures: list[Picture], noise_pred: Array, rows: int, seconds: float
    ) -> None:
        """One step of a request's pictures, and what its caller hears of it."""
        usage = work.usage
        before = work.steps_done() if work.wants_steps else 0
        usage.began = usage.began or time.monotonic() - seconds
        usage.ticks += 1
        usage.rows += len(noise_pred)
        usage.shared_rows += rows
        usage.denoiser_s += seconds
        advance(pictures, noise_pred, self._ticks)
        if work.wants_steps and work.steps_done() > before:
            self._lives.tell(request, work.stepped())
        if work.done:
            usage.ended = usage.ended or time.monotonic()
            self._lives.finish(request, work.finished())
