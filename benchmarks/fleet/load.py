"""Callers of a fleet, each in a thread with a client of its own, who note when each call began and how it ended.

They send again, once, what was lost on the way, which is the client's part; what was not reached or refused is the proxy's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from faceclip import FaceCLIPError, FaceCLIPPipeline, ServerBusyError, retry

LEAST = {"height": 128, "width": 128}


@dataclass(frozen=True)
class Kind:
    """What a caller asks for, again and again."""

    name: str
    steps: int
    streamed: bool = False


@dataclass
class Call:
    kind: Kind
    began: float
    """Monotonic seconds."""
    ended: float = 0.0
    error: str = ""
    answered: bool = False
    """Whether an answer had come before it failed; of a stream its first step."""

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass
class Calls:
    """All that were made; in the order of their ends."""

    made: list[Call] = field(default_factory=list)
    busy: int = 0
    """Refusals by servers that had as much as they take, which are no failures."""

    def of(self, kind: Kind | None = None, since: float = 0.0) -> list[Call]:
        return [call for call in self.made if kind in (None, call.kind) and call.began >= since]

    def failed(self, streamed: bool | None = None, since: float = 0.0) -> list[Call]:
        return [call for call in self.of(since=since) if call.error and streamed in (None, call.kind.streamed)]

    def told(self) -> dict[str, Any]:
        """For a report: how many, and why any failed."""
        why: dict[str, int] = {}
        for call in self.failed():
            why[call.error] = why.get(call.error, 0) + 1
        return {"calls": len(self.made), "busy": self.busy, "failed": len(self.failed()), "why": why}


@contextmanager
def calling(url: str, callers: Mapping[Kind, int], headers: Mapping[str, str] | None = None) -> Iterator[Calls]:
    """So many callers of each kind as long as the block lasts, and until their last calls have ended."""
    calls, over, lock = Calls(), threading.Event(), threading.Lock()

    def caller(kind: Kind, pipe: FaceCLIPPipeline, seed: int) -> None:
        while not over.is_set():
            call = Call(kind, time.monotonic())
            try:
                _draw(pipe, call, seed)
            except ServerBusyError as busy:
                calls.busy += 1
                over.wait(min(busy.retry_after_s or 1.0, 2.0))
                continue
            except FaceCLIPError as error:
                call.error = f"{type(error).__name__}: {error}"
                over.wait(0.1)
            call.ended = time.monotonic()
            with lock:
                calls.made.append(call)

    kinds = [kind for kind, number in callers.items() for _ in range(number)]
    with ExitStack() as stack:
        open_pipe = partial(FaceCLIPPipeline.from_pretrained, url, headers=headers, timeout_s=120)
        pipes = [stack.enter_context(open_pipe()) for _ in kinds]
        threads = [
            threading.Thread(target=caller, args=(kind, pipe, seed))
            for seed, (kind, pipe) in enumerate(zip(kinds, pipes, strict=True))
        ]
        stack.enter_context(_lost_alone_again())
        for thread in threads:
            thread.start()
        try:
            yield calls
        finally:
            over.set()
            for thread in threads:
                thread.join()


def _draw(pipe: FaceCLIPPipeline, call: Call, seed: int) -> None:
    asked: dict[str, Any] = {"num_inference_steps": call.kind.steps, "seed": seed, **LEAST}
    if not call.kind.streamed:
        pipe("a portrait", **asked)
        return
    for _ in pipe.stream("a portrait", **asked):
        call.answered = True


@contextmanager
def _lost_alone_again() -> Iterator[None]:
    """The client's attempts where no server was reached are switched off."""
    usual = retry.CONNECT_RETRIES
    retry.CONNECT_RETRIES = 0
    try:
        yield
    finally:
        retry.CONNECT_RETRIES = usual


def percentile(seconds: Sequence[float], share: float) -> float:
    """The smallest value that so large a share does not exceed; 0 of none."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
