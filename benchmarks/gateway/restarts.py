"""Jobs while gateway and server are killed: each that was accepted ends once, with the picture that it has alone.

Callers send jobs with idempotency keys, and send again what was not answered, as callers do. A webhook is told of each end. The
gateway is killed at random moments, the server as often as asked; both come back where they were.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from ..measure.example import ALIGNED
from ..measure.report import say
from .running import Gateway, Server, started

if TYPE_CHECKING:
    from collections.abc import Iterator

DISTINCT = 10
"""Requests that differ, by their seeds."""
STEPS = 100
CALLERS = 8
WITHIN_S = 300.0
"""All have ended by then."""


def restarts(repository: Path, folder: Path, jobs: int, gateway_kills: int, server_kills: int, seed: int = 0) -> dict[str, Any]:
    """What became of so many jobs. `repository`: one whose pictures are the same to the last bit in any company."""
    rng = random.Random(seed)
    with hook() as (origin, told):
        server = Server(repository, folder / "server.log")
        options = ("--webhook-host", origin, "--webhook-network", "127.0.0.0/8", "--jobs-at-once", "6")
        gateway = Gateway(server.url, folder / "data", folder / "gateway.log", *options)
        with started(server, gateway):
            gateway.wait_ready(of_server=True)
            alone = {number: digest_alone(gateway.url, number) for number in range(DISTINCT)}
            accepted: dict[int, str] = {}
            with ThreadPoolExecutor(CALLERS) as callers:
                sending = [callers.submit(send, gateway.url, number, f"{origin}/end", accepted) for number in range(jobs)]
                kill_between(rng, gateway, server, gateway_kills, server_kills)
                for each in sending:
                    each.result()
            say(f"{len(accepted)} jobs accepted; waiting for their ends")
            found = {number: wait_for(gateway.url, job) for number, job in accepted.items()}
            listed = everything(gateway.url)
            wrong = [number for number, job in found.items() if fetched(job) != alone[number % DISTINCT]]
            wait_told(told, set(accepted.values()))
            second = Gateway(server.url, folder / "data", folder / "second.log")
            second_refused = refused(second, folder / "second.log")
    statuses = Counter(job["status"] for job in found.values())
    ends = {job: {event["type"] for event in events} for job, events in told.items()}
    return {
        "jobs": jobs,
        "accepted": len(accepted),
        "gateway_kills": gateway_kills,
        "server_kills": server_kills,
        "statuses": dict(statuses),
        "lost_jobs": jobs - len(accepted) + sum(number for status, number in statuses.items() if status != "completed"),
        "duplicated_jobs": len(listed) - len(set(accepted.values())) + sum(len(types) > 1 for types in ends.values()),
        "wrong_pictures": len(wrong),
        "attempts": dict(sorted(Counter(job["attempts"] for job in found.values()).items())),
        "untold_webhooks": len(set(accepted.values()) - set(ends)),
        "photographs_left": len(list((folder / "data" / "waiting").iterdir())),
        "second_gateway_refused": second_refused,
    }


def body(number: int) -> dict[str, Any]:
    face = base64.b64encode(ALIGNED.read_bytes()).decode() if number % DISTINCT == 0 else None
    about = {"face_images": [face], "face_aligned": True} if face else {}
    return {"prompt": f"a portrait, {number % DISTINCT}", "seed": number % DISTINCT, "num_inference_steps": STEPS, **about}


def digest_alone(url: str, number: int) -> str:
    answer = (
        httpx.post(f"{url}/v1/images/generations", json=body(number), timeout=120, trust_env=False).raise_for_status().json()
    )
    return hashlib.sha256(base64.b64decode(answer["data"][0]["b64_json"])).hexdigest()


def send(url: str, number: int, webhook: str, accepted: dict[int, str]) -> None:
    """Until it is accepted, under one key: who is not answered does not know."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        with suppress(httpx.TransportError):
            asked = {**body(number), "webhook_url": webhook}
            answer = httpx.post(
                f"{url}/v1/jobs", json=asked, headers={"Idempotency-Key": str(number)}, timeout=30, trust_env=False
            )
            if answer.status_code == 202:
                accepted[number] = answer.json()["id"]
                return
            say(f"job {number}: {answer.status_code} {answer.text[:200]}")
        time.sleep(0.3)


def kill_between(rng: random.Random, gateway: Gateway, server: Server, gateway_kills: int, server_kills: int) -> None:
    """In random order and at random moments."""
    for victim in rng.sample([gateway] * gateway_kills + [server] * server_kills, gateway_kills + server_kills):
        time.sleep(rng.uniform(0.3, 3.0))
        say(f"{type(victim).__name__.lower()} is killed")
        victim.kill()
        time.sleep(rng.uniform(0.0, 1.0))
        victim.start()
        victim.wait_ready()


def wait_for(url: str, job_id: str) -> dict[str, Any]:
    until = time.monotonic() + WITHIN_S
    while True:
        job: dict[str, Any] = httpx.get(f"{url}/v1/jobs/{job_id}", timeout=30, trust_env=False).json()
        if "error" in job and "status" not in job:
            return {"status": "unknown", "attempts": 0, "result": None}
        if job["ended"] or time.monotonic() > until:
            return job
        time.sleep(0.1)


def everything(url: str) -> list[str]:
    """The ids of all jobs, page by page."""
    found: list[str] = []
    while True:
        after = {"after": found[-1]} if found else {}
        page = httpx.get(f"{url}/v1/jobs", params={"limit": 100, **after}, timeout=30, trust_env=False).json()
        found += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            return found


def fetched(job: dict[str, Any]) -> str:
    """The digest of a job's picture, as its address gives it."""
    if not job["result"]:
        return ""
    answer = httpx.get(job["result"]["data"][0]["url"], timeout=30, trust_env=False)
    return hashlib.sha256(answer.content).hexdigest()


def wait_told(told: dict[str, list[dict[str, Any]]], jobs: set[str]) -> None:
    until = time.monotonic() + 60
    while jobs - set(told) and time.monotonic() < until:
        time.sleep(0.1)


def refused(second: Gateway, log: Path) -> bool:
    """Whether a gateway does not start beside another in one folder, and says why."""
    second.start()
    try:
        second.wait_ready()
    except Exception:  # noqa: BLE001 - that it does not start is what is wanted
        return "another gateway works in it" in log.read_text()
    finally:
        second.end()
    return False


@contextmanager
def hook() -> Iterator[tuple[str, dict[str, list[dict[str, Any]]]]]:
    """A webhook's origin, and what it was told of each job."""
    told: dict[str, list[dict[str, Any]]] = defaultdict(list)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["content-length"])))
            told[event["data"]["id"]].append(event)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", told
    finally:
        server.shutdown()
        server.server_close()
