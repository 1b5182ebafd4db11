"""Thousands of mixed requests from several processes; who was answered wrongly or not at all, and what was left behind."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from faceclip import FaceCLIPPipeline
from faceclip_serving.contract.names import FACES, UNARY
from faceclip_serving.contract.operations import Status
from server.control import ask
from server.metrics import read_metrics
from server.models import model_processes

from ..measure.example import ALIGNED
from ..measure.report import say
from .callers import PICTURE, Caller, Verdict, perform
from .requests import DISTINCT, FOUND, faces, good, task

if TYPE_CHECKING:
    from server.process import TritonServer

PROCESSES = 4
SALT = 1
LEFT_WITHIN_S = 15.0
"""A place whose holder has vanished is given back after a lease of 5 s; then it is leaked."""
WARM_UP = 0.4
"""Share of the requests that are left out where memory is fitted: until then allocators, caches and thread pools grow to their size."""


def solo_pictures(url: str, numbers: Sequence[int] = range(DISTINCT), steps: int | None = None) -> dict[int, str]:
    """Digests of good requests' pictures, each drawn alone.

    First of all, so that the encoders remember every encoding as it is here, to the last bit: rows that are computed in another
    company may differ in it, and this compares bits.
    """
    caller = Caller(url)
    found = {}
    for number in numbers:
        answer = caller.ask(UNARY, good(number, steps))
        if answer.kind != PICTURE:
            raise RuntimeError(f"request {number}, alone: {answer}")
        (found[number],) = answer.pictures
    caller.close()
    return found


def faces_alone(url: str) -> str:
    """What request `FOUND` is answered, alone."""
    caller = Caller(url)
    (found,) = caller.ask(FACES, faces()).pictures
    caller.close()
    return found


def sealed_of(url: str) -> bytes:
    """The identity of `ALIGNED`."""
    with FaceCLIPPipeline.from_pretrained(url) as pipe:
        return pipe.identity(ALIGNED, face_aligned=True).data


# ----------------------------------------------------------------------------------------------------------- a process of callers
def work(
    url: str,
    right: Mapping[int, str],
    sealed: bytes,
    numbers: Sequence[int],
    threads: int,
    done: Synchronized[int],
    results: Any,
) -> None:
    """What a process of callers does: these tasks, by so many threads, each over a connection of its own."""
    own = threading.local()

    def one(number: int) -> Verdict:
        if not hasattr(own, "caller"):
            own.caller = Caller(url)
        verdict = perform(own.caller, task(SALT, number, sealed), right)
        with done.get_lock():
            done.value += 1
        return verdict

    with ThreadPoolExecutor(threads) as pool:
        results.put(list(pool.map(one, numbers)))


def let_loose(
    url: str, right: Mapping[int, str], sealed: bytes, requests: int, callers: int, done: Synchronized[int], context: Any
) -> list[Verdict]:
    """All tasks of a storm, by `callers` threads in `PROCESSES` processes."""
    results = context.Queue()
    processes = [
        context.Process(
            target=work,
            args=(url, right, sealed, range(first, requests, PROCESSES), callers // PROCESSES, done, results),
            daemon=True,
        )
        for first in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    verdicts: list[Verdict] = []
    for _ in processes:
        verdicts += results.get()
    for process in processes:
        process.join()
    return verdicts


# ---------------------------------------------------------------------------------------------------------------------- memory
@dataclass
class Memory:
    """Resident memory of the server's processes and its shared memory, sampled while requests end."""

    server: TritonServer
    done: Synchronized[int]
    every_s: float = 0.5
    at: list[int] = field(default_factory=list)
    """Requests that had ended at each sample."""
    rss_mb: dict[str, list[float]] = field(default_factory=dict)
    """Of each model's process, and of `tritonserver`."""
    shm_mb: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        named = {"tritonserver": self.server.pid, **{model: pid for pid, model in model_processes(self.server.pid).items()}}
        self._processes = {name: psutil.Process(pid) for name, pid in named.items()}
        self.rss_mb = {name: [] for name in named}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(self.every_s) and not self.server.ended:
            self.at.append(self.done.value)
            for name, process in self._processes.items():
                with suppress(psutil.NoSuchProcess):
                    self.rss_mb[name].append(process.memory_info().rss / 1e6)
            self.shm_mb.append(sum(path.stat().st_size for path in self.server.shared_memory()) / 1e6)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def report(self, requests: int) -> dict[str, Any]:
        """Least-squares slopes over the samples after the warm-up."""
        at = np.array(self.at)
        fitted = at >= WARM_UP * requests
        if fitted.sum() < 3 or self.server.ended:
            return {"rss_slope_mb_per_1000": None, "shm_growth_mb": None}
        slopes = {name: slope(at[fitted], np.array(rss)[fitted]) for name, rss in self.rss_mb.items()}
        total = np.sum([np.array(rss)[fitted] for rss in self.rss_mb.values()], axis=0)
        shm = np.array(self.shm_mb)[fitted]
        return {
            "rss_slope_mb_per_1000": slope(at[fitted], total),
            "rss_slope_of_each": slopes,
            "rss_mb": {"at_40_percent": round(float(total[0]), 1), "at_the_end": round(float(total[-1]), 1)},
            "shm_mb": {"at_40_percent": round(float(shm[0]), 2), "at_the_end": round(float(shm[-1]), 2)},
            "shm_growth_mb": round(float(shm[-1] - shm[0]), 2),
        }


def slope(at: np.ndarray[Any, Any], mb: np.ndarray[Any, Any]) -> float:
    """MB per 1000 requests."""
    return round(float(np.polyfit(at, mb, 1)[0] * 1000), 2)


# ---------------------------------------------------------------------------------------------------------------------- the whole
def storm(server: TritonServer, requests: int, callers: int = 48) -> dict[str, Any]:
    """What came of `requests` mixed requests. `callers`: at once, a few more than there are places."""
    right = {**solo_pictures(server.url), FOUND: faces_alone(server.url)}
    say(f"{len(right)} pictures drawn alone")
    context = multiprocessing.get_context("spawn")
    done = context.Value("i", 0)
    memory = Memory(server, done)
    began = time.monotonic()
    telling = threading.Event()
    teller = threading.Thread(target=_tell, args=(done, requests, telling), daemon=True)
    teller.start()
    verdicts = let_loose(server.url, right, sealed_of(server.url), requests, callers, done, context)
    seconds = time.monotonic() - began
    telling.set()
    memory.stop()
    left = what_is_left(server)
    faults = [verdict.fault for verdict in verdicts if verdict.fault]
    for text in faults[:20]:
        say(text)
    return {
        "requests": len(verdicts),
        "callers": callers,
        "seconds": round(seconds, 1),
        "outcomes": outcomes(verdicts),
        "refused_as_busy": sum(verdict.refused for verdict in verdicts),
        "unanswered": sum(text.startswith("unanswered") for text in faults),
        "wrong": sum(text.startswith("wrong:") for text in faults),
        "faults": len(faults),
        "first_faults": faults[:5],
        "longest_s": round(max(verdict.seconds for verdict in verdicts), 2),
        **left,
        **memory.report(requests),
    }


def outcomes(verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    """What was asked -> how it ended -> how often."""
    counted: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        name = verdict.asked.value if verdict.way is None else f"{verdict.asked.value}: {verdict.way.value}"
        counted.setdefault(name, Counter())[verdict.ended] += 1
    return {name: dict(sorted(counts.items())) for name, counts in sorted(counted.items())}


def what_is_left(server: TritonServer) -> dict[str, Any]:
    """Places that are still taken after all callers have gone, and how long the last of them was."""
    if server.ended:
        return {"leaked_leases": None, "leaked_in_metrics": None}
    began = time.monotonic()
    while True:
        status = ask(server.connection, Status())
        gauge = read_metrics(f"127.0.0.1:{server.ports.metrics}").get("faceclip_requests", 0.0)
        waited_s = time.monotonic() - began
        if (not status["in_flight"] and not gauge) or waited_s > LEFT_WITHIN_S:
            break
        time.sleep(0.1)
    return {"leaked_leases": status["in_flight"], "leaked_in_metrics": int(gauge), "free_after_s": round(waited_s, 2)}


def _tell(done: Synchronized[int], requests: int, over: threading.Event) -> None:
    while not over.wait(15):
        say(f"{done.value} of {requests}")


def log_faults(text: str) -> list[str]:
    """Lines of the server's log that tell of a fault: errors that no caller has deserved."""
    lines = text.splitlines()
    return [line for line in lines if line.startswith(("ERROR ", "CRITICAL ")) or _is_error(line)]


def _is_error(line: str) -> bool:
    if not line.startswith("{"):
        return False
    try:
        return bool(json.loads(line).get("outcome") == "error")
    except ValueError:
        return False
