"""Does it leak? Many mixed requests with random cancels; memory, shared memory, threads and open files before and after."""

from __future__ import annotations

import argparse
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil

from export.commandline import add_variant
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..measure.example import PHOTO
from ..measure.report import emit, say
from ..measure.running import serving

if TYPE_CHECKING:
    from faceclip import FaceCLIPPipeline
    from server.process import TritonServer

PLACEMENT = CPU


def usage(server: TritonServer) -> dict[str, float]:
    """Of the server and all its model processes together."""
    root = psutil.Process(server.pid)
    processes = [root, *root.children(recursive=True)]
    return {
        "rss_mb": sum(process.memory_info().rss for process in processes) / 1e6,
        "threads": sum(process.num_threads() for process in processes),
        "open_files": sum(process.num_fds() for process in processes),
        "shm_mb": sum(path.stat().st_size for path in server.shared_memory()) / 1e6,
    }


def one(pipe: FaceCLIPPipeline, rng: random.Random) -> str:
    """A random request; how it ended."""
    from faceclip import InvalidRequestError

    low = pipe.config.limits["height"]["min"]
    options: dict[str, Any] = {
        "seed": rng.randrange(2**32),
        "num_inference_steps": rng.randint(1, 8),
        "height": low + 8 * rng.randrange(8),
        "width": low + 8 * rng.randrange(8),
        "scheduler": rng.choice(["euler", "dpmpp_2m", "unipc", "ddim"]),
        "retries": 50,
    }
    if rng.random() < 0.3:
        options["face_image"] = PHOTO.read_bytes()
    kind = rng.choice(["plain", "plain", "stream", "cancel", "invalid"])
    prompt = f"a portrait, number {rng.randrange(50)}"
    if kind == "plain":
        pipe(prompt, **options)
    elif kind == "invalid":
        try:
            pipe(prompt, **{**options, "height": 131})
        except InvalidRequestError:
            return kind
        raise AssertionError("an invalid request was served")
    else:
        for step, _ in enumerate(stream := pipe.stream(prompt, **options)):
            if kind == "cancel" and step == 1:
                stream.close()
                break
    return kind


def soak(variant: Variant, requests: int, concurrency: int = 6) -> dict[str, Any]:
    """Usage after a warm-up of the same mixture, and after `requests` more."""
    with serving(variant, PLACEMENT) as (server, pipe), ThreadPoolExecutor(concurrency) as clients:

        def run(count: int, salt: int) -> dict[str, float]:
            list(clients.map(lambda i: one(pipe, random.Random(salt + i)), range(count)))
            time.sleep(2)
            return usage(server)

        points = [run(max(100, requests // 5), 10**6)]
        for part in range(5):
            points.append(run(requests // 5, part * 10**4))
            say(f"{(part + 1) * (requests // 5)} requests: {points[-1]}")
    first, last = points[0], points[-1]
    return {
        "variant": variant.name,
        "requests": requests,
        "before": first,
        "after": last,
        "growth": {key: round(last[key] - first[key], 2) for key in first},
        "rss_growth_over_last_half_mb": round(last["rss_mb"] - points[3]["rss_mb"], 2),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    parser.add_argument("--requests", type=int, default=500)


def run(args: argparse.Namespace) -> int:
    emit(f"soak-{args.variant}", soak(VARIANTS[args.variant], args.requests))
    return 0
