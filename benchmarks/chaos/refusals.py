"""How long a refusal takes while all preparers work on the worst photographs and every place is taken."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from faceclip_serving.contract.names import STREAM, UNARY
from faceclip_serving.contract.operations import Status
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.face.photos import MAX_MEGAPIXELS
from server.control import ask

from ..measure.report import say
from .callers import BUSY, INVALID, Answer, Caller
from .requests import good

if TYPE_CHECKING:
    from server.process import TritonServer

SIDE = int((MAX_MEGAPIXELS * 1e6) ** 0.5) // 8 * 8
PER_REQUEST = 4
FILLED_WITHIN_S = 120.0
SPARE = 1
"""More callers than places, who take what becomes free."""


@cache
def worst_photographs() -> tuple[bytes, ...]:
    """As large as is accepted, and nobody in them, so that every size and turn is searched: PNG, and JPEG in many scans."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    picture = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    files = []
    for kind, options in (("PNG", {"compress_level": 1}), ("JPEG", {"quality": 70, "progressive": True})):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return tuple(files)


def refusals(server: TritonServer, count: int) -> dict[str, Any]:
    """Milliseconds of `count` refusals, one after the other, by a caller who sends an ordinary request with a face."""
    told = ask(server.connection, Status())["settings"]
    places = told["max_active"] + told["max_waiting"]
    photographs = (worst_photographs() * PER_REQUEST)[:PER_REQUEST]
    over = threading.Event()
    ends: Counter[str] = Counter()

    def fill(number: int) -> None:
        """One place, taken again and again."""
        caller = Caller(server.url)
        tensors = request_tensors(prompt="a crowd", face_images=list(photographs))
        while not over.is_set():
            kind = _until(caller, STREAM if number % 2 else UNARY, tensors, over).kind
            ends[kind] += 1
            if kind not in (BUSY, INVALID):
                return

    with ThreadPoolExecutor(places + SPARE) as fillers:
        for number in range(places + SPARE):
            fillers.submit(fill, number)
        try:
            say(f"{places} places filled with {PER_REQUEST} photographs of {SIDE} x {SIDE} each")
            until_full(server, places)
            found = _measure(server, count, places)
        finally:
            over.set()
    milliseconds = [answer.seconds * 1e3 for answer in found]
    return {
        "calls": len(found),
        "places_taken": places,
        "preparing_threads": told["preparing_threads"],
        "photographs": f"{PER_REQUEST} of {SIDE} x {SIDE} per request, PNG and progressive JPEG, nobody in them",
        "p50": _percentile(milliseconds, 50),
        "p99": _percentile(milliseconds, 99),
        "max": round(max(milliseconds), 2),
        "ends_of_the_others": dict(ends),
        "faults": sum(kind not in (BUSY, INVALID, "cancelled") for kind in ends.elements()),
    }


def _until(caller: Caller, model: str, tensors: Any, over: threading.Event) -> Answer:
    """One call, left when the measurement is over; a refused one waits a little."""
    answer = caller.ask(model, tensors, over=over)
    if answer.kind == BUSY:
        over.wait(1.0)
    return answer


def until_full(server: TritonServer, places: int) -> None:
    """Waits until so many requests are in flight. Raises `RuntimeError` where that takes long."""
    deadline = time.monotonic() + FILLED_WITHIN_S
    while ask(server.connection, Status())["in_flight"] < places:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the server was not full within {FILLED_WITHIN_S:.0f} s")
        time.sleep(0.2)


def _measure(server: TritonServer, count: int, places: int) -> list[Answer]:
    """Refusals alone: who gets a place that has just become free gives it up, and waits until another has taken it."""
    caller, tensors, found = Caller(server.url), good(0), list[Answer]()
    while len(found) < count and not server.ended:
        answer = caller.ask(UNARY, tensors, limit_s=1.0)
        if answer.kind == BUSY:
            found.append(answer)
        else:
            until_full(server, places)
        time.sleep(0.01)
    caller.close()
    return found


def _percentile(values: Sequence[float], share: float) -> float:
    return round(float(np.percentile(values, share)), 2)
