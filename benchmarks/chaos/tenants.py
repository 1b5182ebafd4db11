"""One tenant floods the server, and most of its callers hang up at random moments; what that does to another tenant's one caller."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from faceclip_serving.contract.names import STREAM, UNARY
from faceclip_serving.contract.operations import Status
from faceclip_serving.contract.tensors import Array, bytes_tensor
from server.control import ask

from ..measure.report import say
from .callers import BUSY, PICTURE, Answer, Caller
from .refusals import until_full
from .requests import DISTINCT, Way, good
from .storm import solo_pictures

if TYPE_CHECKING:
    from server.process import TritonServer

FLOOD, QUIET = b"flood", b"quiet"
MORE_THAN_PLACES = 8
"""Callers of the flood above the number of places."""
STEPS = 40
"""Of each request."""
LONGEST_STAY_S = 2.0
PAUSE_S = 0.05
"""Between the quiet tenant's requests: its place is given back, and the flood takes it."""


def tenants(server: TritonServer, count: int) -> dict[str, Any]:
    """What came of `count` requests of the quiet tenant, one after the other, of as many steps as those of the flood."""
    right = solo_pictures(server.url, steps=STEPS)
    told = ask(server.connection, Status())["settings"]
    places = told["max_active"] + told["max_waiting"]
    over = threading.Event()
    ends: Counter[str] = Counter()
    waited: list[float] = []

    def flood(number: int) -> None:
        rng, caller = random.Random(number), Caller(server.url)
        tensors = _of(FLOOD, good(number % DISTINCT, STEPS))
        while not over.is_set():
            way = rng.choice((None, *Way))
            leaving = None if way is None else (way, rng.random() * LONGEST_STAY_S)
            answer = caller.ask(rng.choice((STREAM, UNARY)), tensors, leaving=leaving, over=over)
            ends[answer.kind] += 1
            if answer.kind == PICTURE:
                waited.append(answer.seconds)
            if answer.kind == BUSY:
                over.wait(rng.random())
        caller.close()

    with ThreadPoolExecutor(places + MORE_THAN_PLACES) as callers:
        for number in range(places + MORE_THAN_PLACES):
            callers.submit(flood, number)
        try:
            until_full(server, places)
            say(f"{places} places are the flood's; {count} requests of another tenant")
            answers = _one_by_one(server, count, over)
        finally:
            over.set()
    quiet_s, flood_s = [float(np.median(each)) for each in ([answer.seconds for answer in answers], waited)]
    refused = sum(answer.kind == BUSY for answer in answers)
    rightly = sum(answer.pictures == [right[n % DISTINCT]] for n, answer in enumerate(answers))
    return {
        "requests": count,
        "flooding_callers": places + MORE_THAN_PLACES,
        "places": places,
        "refused": refused,
        "wrong_or_missing": count - rightly - refused,
        "seconds_p50": round(quiet_s, 3),
        "seconds_p50_of_the_flood": round(flood_s, 3),
        "ends_of_the_flood": dict(ends),
    }


def _one_by_one(server: TritonServer, count: int, over: threading.Event) -> list[Answer]:
    caller, answers = Caller(server.url), list[Answer]()
    while len(answers) < count and not server.ended:
        number = len(answers)
        answers.append(caller.ask(STREAM if number % 2 else UNARY, _of(QUIET, good(number % DISTINCT, STEPS))))
        over.wait(PAUSE_S)
    caller.close()
    return answers


def _of(tenant: bytes, tensors: Mapping[str, Array]) -> dict[str, Array]:
    return {**tensors, "tenant": bytes_tensor([tenant])}
