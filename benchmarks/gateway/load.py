"""Many clients through the gateway, and the same clients straight to the server by gRPC, in turns on one server.

What a client waits is mostly the server's time, which the server tells (`timings_s.total`), and which grows with the clients. What is left
is the way there and back. The gateway's overhead is what is left through it, less what is left without it, median against median.
The clients' own work (JSON, base64) is within. Clients run in a process of their own. They begin one after another over `SPREAD_S`, and
the first request of each does not count: as many that come in one instant wait for one another, on either way.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import multiprocessing
import statistics
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import psutil

from ..measure.example import ALIGNED
from ..measure.report import say
from ..measure.running import PLAIN
from .running import Gateway, Server, started

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

PLACES = ("max_active=64", "max_waiting=64")
"""As many as there are clients: nobody is refused."""
FILLING = 3000
"""Jobs that are made and cancelled before memory is looked at: until then caches and pools grow to their size."""
TENTHS = 10
WARM_UP = 0.2
"""Share of the requests that are left out where memory is fitted, for the same reason."""
PROMPT = "a portrait"
SPREAD_S = 8.0
"""About what a request takes when all places are taken."""


def load(repository: Path, folder: Path, clients: int, requests_each: int, steps: int, rounds: int = 3) -> dict[str, Any]:
    """Overhead of a request, in milliseconds."""
    server = Server(repository, folder / "server.log", (*PLAIN, *PLACES))
    gateway = Gateway(server.url, folder / "data", folder / "gateway.log")
    left: dict[str, list[float]] = {"direct": [], "gateway": []}
    waited: dict[str, list[float]] = {"direct": [], "gateway": []}
    cpu_s = 0.0
    with started(server, gateway):
        gateway.wait_ready(of_server=True)
        clients_in_process(through_gateway, gateway.url, 8, 1, steps)
        clients_in_process(directly, server.url, 8, 1, steps)
        for number in range(rounds):
            for way, act, url in (("direct", directly, server.url), ("gateway", through_gateway, gateway.url)):
                before = cpu_of(gateway.pid)
                times = clients_in_process(act, url, clients, requests_each, steps)
                cpu_s += cpu_of(gateway.pid) - before if way == "gateway" else 0.0
                waited[way] += [whole for whole, _ in times]
                left[way] += [whole - served for whole, served in times]
                say(
                    f"round {number + 1}, {way}: {described(waited[way])} s waited, {described(left[way])} s beside the server's"
                )
    count = len(left["gateway"])
    return {
        "clients": clients,
        "requests": count,
        "steps": steps,
        "overhead_ms_p50": round((statistics.median(left["gateway"]) - statistics.median(left["direct"])) * 1e3, 2),
        "beside_the_server_ms": {way: percentiles_ms(times) for way, times in left.items()},
        "latency_ms": {way: percentiles_ms(times) for way, times in waited.items()},
        "gateway_cpu_ms_per_request": round(cpu_s / (count + rounds * clients) * 1e3, 2),
    }


def memory(repository: Path, folder: Path, clients: int, requests: int, steps: int) -> dict[str, Any]:
    """Resident memory of the gateway over pictures, streams and jobs."""
    server = Server(repository, folder / "server.log", (*PLAIN, *PLACES))
    gateway = Gateway(server.url, folder / "data", folder / "gateway.log", "--keep-results", "20")
    at: list[int] = []
    mb: list[float] = []
    with started(server, gateway):
        gateway.wait_ready(of_server=True)
        done = multiprocessing.get_context("spawn").Value("i", 0)
        clients_in_process(cancelled_jobs, gateway.url, 16, FILLING // 16, steps, done)
        done.value = 0
        over = threading.Event()

        def sample() -> None:
            process = psutil.Process(gateway.pid)
            while not over.wait(0.5):
                at.append(done.value)
                mb.append(process.memory_info().rss / 1e6)

        sampler = threading.Thread(target=sample, daemon=True)
        sampler.start()
        clients_in_process(of_all_kinds, gateway.url, clients, requests // clients, steps, done)
        over.set()
        sampler.join()
    middles = middle_of_each(at, mb, TENTHS)
    return {
        "requests": at[-1],
        "rss_mb_of_each_tenth": [round(middle, 1) for middle in middles],
        "rss_slope_mb_per_1000": round(steady_slope(middles[round(WARM_UP * TENTHS) :]) * TENTHS / at[-1] * 1000, 2),
    }


def middle_of_each(at: Sequence[int], values: Sequence[float], parts: int) -> list[float]:
    """Medians of the values in equal parts of the requests. Memory goes up and down with what is in flight: single values say little."""
    ends = np.linspace(0, at[-1], parts + 1)
    of = np.clip(np.searchsorted(ends, at, side="right") - 1, 0, parts - 1)
    return [float(np.median(np.asarray(values)[of == part])) for part in range(parts) if (of == part).any()]


def steady_slope(values: Sequence[float]) -> float:
    """By how much the values grow from one to the next: the median of the slopes between any two (Theil and Sen)."""
    pairs = itertools.combinations(range(len(values)), 2)
    return statistics.median((values[j] - values[i]) / (j - i) for i, j in pairs)


# --------------------------------------------------------------------------------------------------------- a process of clients
def clients_in_process(act: Any, url: str, clients: int, requests_each: int, steps: int, done: Any = None) -> list[Any]:
    """What `act` returns for each request, by so many clients at once."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=work, args=(act, url, clients, requests_each, steps, done, results), daemon=True)
    process.start()
    found = results.get()
    process.join()
    if isinstance(found, str):
        raise RuntimeError(found)
    return list(found)


def work(act: Any, url: str, clients: int, requests_each: int, steps: int, done: Any, results: Any) -> None:
    try:
        results.put(asyncio.run(act(url, clients, requests_each, steps, done)))
    except BaseException as error:
        results.put(f"{type(error).__name__}: {error}")
        raise


async def many(one: Callable[[int], Awaitable[Any]], clients: int, requests_each: int, done: Any) -> list[Any]:
    """`done`: counts requests, where all count and nobody waits to begin."""
    found: list[Any] = []

    async def client(number: int) -> None:
        if done is None:
            await asyncio.sleep(SPREAD_S * number / clients)
            await one(number)
        for i in range(requests_each):
            found.append(await one(number * requests_each + i))
            if done is not None:
                done.value += 1

    await asyncio.gather(*map(client, range(clients)))
    return found


async def directly(url: str, clients: int, requests_each: int, steps: int, done: Any) -> list[tuple[float, float]]:
    """Seconds that each waited, and seconds that the server says."""
    from faceclip import AsyncFaceCLIPPipeline

    face = ALIGNED.read_bytes()
    async with await AsyncFaceCLIPPipeline.from_pretrained(url) as pipe:

        async def one(number: int) -> tuple[float, float]:
            began = time.perf_counter()
            result = await pipe(
                PROMPT, face_image=face, face_aligned=True, seed=number, num_inference_steps=steps, output_type="bytes"
            )
            return time.perf_counter() - began, result.details["timings_s"]["total"]

        return await many(one, clients, requests_each, done)


async def through_gateway(url: str, clients: int, requests_each: int, steps: int, done: Any) -> list[tuple[float, float]]:
    """The same by HTTP."""
    face = base64.b64encode(ALIGNED.read_bytes()).decode()
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False, limits=httpx.Limits(max_connections=None)) as http:

        async def one(number: int) -> tuple[float, float]:
            began = time.perf_counter()
            answer = await http.post("/v1/images/generations", json=asked(face, number, steps))
            document = json.loads(answer.raise_for_status().content)
            base64.b64decode(document["data"][0]["b64_json"])
            return time.perf_counter() - began, document["details"]["timings_s"]["total"]

        return await many(one, clients, requests_each, done)


async def of_all_kinds(url: str, clients: int, requests_each: int, steps: int, done: Any) -> list[str]:
    """Pictures at once, streams, streams that are left, jobs that are followed, jobs that are cancelled, and bad requests."""
    face = base64.b64encode(ALIGNED.read_bytes()).decode()
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False, limits=httpx.Limits(max_connections=None)) as http:

        async def one(number: int) -> str:
            body, kind = asked(face, number, steps), number % 6
            if kind == 0:
                (await http.post("/v1/images/generations", json=body)).raise_for_status()
            elif kind in (1, 2):
                streamed = {**body, "stream": True, "partial_images": 2}
                async with http.stream("POST", "/v1/images/generations", json=streamed) as answer:
                    async for _ in answer.aiter_lines():
                        if kind == 2:
                            break
            elif kind in (3, 4):
                job = (await http.post("/v1/jobs", json={**body, "partial_images": 1})).raise_for_status().json()
                if kind == 4:
                    await http.delete(f"/v1/jobs/{job['id']}")
                else:
                    async with http.stream("GET", f"/v1/jobs/{job['id']}/events") as answer:
                        async for _ in answer.aiter_lines():
                            pass
            else:
                assert (await http.post("/v1/images/generations", json={**body, "num_inference_steps": 0})).status_code == 400
            return ""

        return await many(one, clients, requests_each, done)


async def cancelled_jobs(url: str, clients: int, requests_each: int, steps: int, done: Any) -> list[str]:
    """Jobs that are given up as soon as they are accepted."""
    face = base64.b64encode(ALIGNED.read_bytes()).decode()
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False, limits=httpx.Limits(max_connections=None)) as http:

        async def one(number: int) -> str:
            job = (await http.post("/v1/jobs", json=asked(face, number, steps))).raise_for_status().json()
            await http.delete(f"/v1/jobs/{job['id']}")
            return str(job["id"])

        return await many(one, clients, requests_each, done)


def asked(face: str, number: int, steps: int) -> dict[str, Any]:
    return {"prompt": PROMPT, "face_images": [face], "face_aligned": True, "seed": number, "num_inference_steps": steps}


def cpu_of(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def described(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.3f}"


def percentiles_ms(seconds: list[float]) -> dict[str, float]:
    return {f"p{share}": round(float(np.percentile(seconds, share)) * 1e3, 1) for share in (50, 90, 99)}
