"""How a server ends under load: one of its models is killed, or it is asked to stop. Every caller in flight learns of it, and in time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from faceclip_serving.contract.names import STREAM, UNARY
from faceclip_serving.contract.operations import Status
from server.control import ask
from server.direct import Connection
from server.keys import operator_parameters
from server.models import model_processes

from ..measure.report import say
from ..measure.running import PLAIN, ServingError, Supervised, supervised
from .callers import BROKEN, DRAINING, PICTURE, SERVER_ERROR, STOPPING, Answer, Caller
from .requests import LONG_STEPS, good
from .storm import solo_pictures

IN_FLIGHT = 24
"""Long requests, half of them streams: three times as many as are drawn at once."""
ENDS_WITHIN_S = 60.0
LATER_THREADS = 4


def killed(repository: Path, model: str) -> dict[str, Any]:
    """The process of `model` gets SIGKILL while requests are in flight."""
    with supervised(repository) as run, ThreadPoolExecutor(IN_FLIGHT) as callers:
        pending = _load(run, callers, range(IN_FLIGHT))
        (server,) = psutil.Process(run.process.pid).children()
        (victim,) = [pid for pid, name in model_processes(server.pid).items() if name == model]
        os.kill(victim, signal.SIGKILL)
        at = time.monotonic()
        answers = [each.result() for each in pending]
        told_s = time.monotonic() - at
        code = run.process.wait(ENDS_WITHIN_S)
        ended_s = time.monotonic() - at
    kinds = Counter(answer.kind for answer in answers)
    # A model that calls the dead one may hear of it before the server is ended, and says so: an answer, though not a picture.
    allowed = (PICTURE, BROKEN, STOPPING, SERVER_ERROR)
    return {
        "model": model,
        "in_flight": IN_FLIGHT,
        "outcomes": dict(kinds),
        "unanswered": sum(count for kind, count in kinds.items() if kind not in allowed),
        "all_told_after_s": round(told_s, 2),
        "exit_code": code,
        "ended_after_s": round(ended_s, 2),
    }


def drained(repository: Path) -> dict[str, Any]:
    """SIGTERM while requests are in flight and others keep coming."""
    with (
        supervised(repository, "--drain-timeout=60", f"--set={PLAIN[0]}") as run,
        ThreadPoolExecutor(IN_FLIGHT + LATER_THREADS) as callers,
    ):
        right = solo_pictures(run.url, range(IN_FLIGHT), LONG_STEPS)
        pending = _load(run, callers, range(IN_FLIGHT))
        run.process.send_signal(signal.SIGTERM)
        at = time.monotonic()
        gone = threading.Event()
        later = [callers.submit(_keep_asking, run.url, first, gone) for first in range(LATER_THREADS)]
        answers = [each.result() for each in pending]
        finished_s = time.monotonic() - at
        code = run.process.wait(ENDS_WITHIN_S)
        ended_s = time.monotonic() - at
        gone.set()
        came_later = [one for each in later for one in each.result()]
    wrong = [number for number, answer in enumerate(answers) if answer.pictures != [right[number]]]
    for number in wrong[:5]:
        say(f"admitted before, and not answered rightly: {number}: {answers[number]}")
    # Between the signal and the moment when the sampler hears of it, a request may still be admitted: then its picture is owed.
    late_faults = [
        f"{answer.kind}: {answer.text[:200]}"
        for number, answer in came_later
        if answer.kind not in (PICTURE, DRAINING, STOPPING, BROKEN) or answer.pictures not in ([], [right[number]])
    ]
    for text in late_faults[:5]:
        say(f"came later: {text}")
    return {
        "in_flight": IN_FLIGHT,
        "right_pictures": len(answers) - len(wrong),
        "wrong_or_missing": len(wrong),
        "later": dict(Counter(answer.kind for _, answer in came_later)),
        "later_faults": len(late_faults),
        "finished_after_s": round(finished_s, 2),
        "ended_after_s": round(ended_s, 2),
        "exit_code": code,
    }


def _load(run: Supervised, callers: ThreadPoolExecutor, numbers: Sequence[int]) -> list[Future[Answer]]:
    """Long requests, sent and admitted."""
    pending = [callers.submit(_ask, run.url, number) for number in numbers]
    to = Connection(run.url, parameters=operator_parameters(run.url))
    deadline = time.monotonic() + ENDS_WITHIN_S
    while (found := ask(to, Status())["in_flight"]) < len(numbers):
        if time.monotonic() > deadline or any(each.done() for each in pending):
            raise ServingError(f"{found} of {len(numbers)} requests in flight; some have ended already")
        time.sleep(0.02)
    return pending


def _ask(url: str, number: int) -> Answer:
    caller = Caller(url)
    try:
        return caller.ask(STREAM if number % 2 else UNARY, good(number, LONG_STEPS))
    finally:
        caller.close()


def _keep_asking(url: str, first: int, gone: threading.Event) -> list[tuple[int, Answer]]:
    """New requests, one after the other, until the server is gone."""
    found = []
    number = first
    while not gone.is_set():
        found.append((number, _ask(url, number)))
        number = (number + LATER_THREADS) % IN_FLIGHT
        gone.wait(0.05)
    return found
