"""How long `/ready` and `/live` take while a server has as many requests in flight as it accepts.

The server is a `python -m server run` of its own, as in production; the times are those of a caller on the same machine.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from export.commandline import add_variant
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant
from server.defaults import Ports
from server.direct import open_url
from server.health import ask_health

from ..measure.report import emit, say
from ..measure.running import ServingError, supervised

PLACEMENT = CPU
QUESTIONS = ("ready", "live")
EVERY_S = 0.05
STEPS = 200
"""Of each request: more than the measurement lasts."""


def milliseconds(ports: Ports, question: str) -> float:
    """Of one answer, which must be yes."""
    started = time.perf_counter()
    with open_url(f"http://127.0.0.1:{ports.health}/{question}", timeout=30) as response:
        response.read()
    return (time.perf_counter() - started) * 1e3


def measure(variant: Variant, requests: int, count: int) -> dict[str, Any]:
    """Percentiles over `count` answers to each question, idle and with `requests` in flight."""
    from faceclip import FaceCLIPError, FaceCLIPPipeline

    def generate(pipe: FaceCLIPPipeline, seed: int) -> None:
        try:
            pipe("a portrait", seed=seed, num_inference_steps=STEPS, height=256, width=256)
        except FaceCLIPError as error:
            ended.append(type(error).__name__)

    ended: list[str] = []
    from export.repository.from_nothing import build_repository  # torch

    repository = build_repository(variant, PLACEMENT)
    with supervised(repository, "--drain-timeout=0") as run, ThreadPoolExecutor(requests) as clients:
        ports = run.ports
        idle = _percentiles(ports, count)
        with FaceCLIPPipeline.from_pretrained(f"127.0.0.1:{ports.grpc}") as pipe:
            for seed in range(requests):
                clients.submit(generate, pipe, seed)
            while (found := _in_flight(ports)) < requests:
                if ended:
                    raise ServingError(f"a request ended before all were there: {ended[0]}")
                say(f"{found} of {requests} in flight")
                time.sleep(1)
            full = _percentiles(ports, count)
            if ended or _in_flight(ports) < requests:
                raise ServingError("requests ended before the measurement did: fewer --count, or a slower variant")
    return {"variant": variant.name, "in_flight": requests, "answers": count, "idle_ms": idle, "full_ms": full}


def _in_flight(ports: Ports) -> int:
    document = json.loads(ask_health(f"127.0.0.1:{ports.health}", "live", timeout_s=30))
    return sum(int(said["in_flight"]) for said in document["deployments"].values())


def _percentiles(ports: Ports, count: int) -> dict[str, dict[str, float]]:
    times: dict[str, list[float]] = {question: [] for question in QUESTIONS}
    for _ in range(count):
        for question, found in times.items():
            found.append(milliseconds(ports, question))
            time.sleep(EVERY_S)
    return {
        question: {f"p{p}": round(float(np.percentile(found, p)), 2) for p in (50, 99)} | {"max": round(max(found), 2)}
        for question, found in times.items()
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    parser.add_argument("--requests", type=int, default=40, help="in flight (default: %(default)s, what the placement accepts)")
    parser.add_argument("--count", type=int, default=200, help="answers to each question (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    emit(f"probes-{args.variant}", measure(VARIANTS[args.variant], args.requests, args.count))
    return 0
