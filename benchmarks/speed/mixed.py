"""Requests of all kinds at once: from words, from a picture, within a mask, of two people, and with a small face drawn again.

The ideal counts the denoiser's rows that each of them needs: an edit begins at its own step, each person is a row more, and a face that
is drawn again has steps of its own. All of them at the denoiser's own throughput in batches that are full.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..measure.example import ALIGNED, SIDE_BY_SIDE, mask, picture
from ..measure.pictures import decoded, picture_psnr_db
from ..measure.report import say
from .bench import ROWS_PER_PICTURE, SAME_DB, Bench, under_load

CLIENTS = 8
SEEDS = 2
"""Of each kind; every picture is compared with the one that its request has alone."""
PEOPLE = 2


def kinds(side: int) -> dict[str, dict[str, Any]]:
    """Keywords of a call, by what kind of request it is."""
    brought = picture(side)
    people = {"face_images": [ALIGNED.read_bytes(), picture(side)], "face_aligned": True, "people": SIDE_BY_SIDE}
    return {
        "text": {},
        "image to image": {"image": brought, "strength": 0.6},
        "people": people,
        "inpainting": {"image": brought, "mask_image": mask(side), "strength": 0.8},
        "face detail": {"image": brought, "strength": 0.1, "face_detail": 0.4},
    }


def rows_of(bench: Bench, asked: Mapping[str, Any], details: Mapping[str, Any]) -> Counter[int]:
    """Rows of the denoiser that a request needs, by the side of the picture that they draw."""
    begin = bench.variant.first_step(bench.steps, asked["strength"]) if "strength" in asked else 0
    rows = Counter({bench.side: (bench.steps - begin) * (ROWS_PER_PICTURE + (PEOPLE if "people" in asked else 0))})
    if told := details["face_detail"]:
        rows[told["height"]] += faces_of(details) * told["steps"] * ROWS_PER_PICTURE
    return rows


def faces_of(details: Mapping[str, Any]) -> int:
    """How many faces were drawn again."""
    told = details["face_detail"] or {"pictures": []}
    return sum(face["left"] is None for faces in told["pictures"] for face in faces)


def mixed(bench: Bench, requests_each: int) -> dict[str, Any]:
    """As a level of `throughput`; besides, how many pictures are not those that their requests have alone."""
    asked = kinds(bench.side)
    plans = [(seed, kind) for seed in range(1, 1 + SEEDS) for kind in asked]
    alone = {plan: bench.ask(seed=plan[0], **asked[plan[1]]) for plan in plans}
    requests = list(itertools.islice(itertools.cycle(plans), CLIENTS * requests_each))
    rows: Counter[int] = Counter()
    for plan in requests:
        rows.update(rows_of(bench, asked[plan[1]], alone[plan].details))
    lock, differ = threading.Lock(), dict.fromkeys(asked, 0)

    def one(plan: tuple[int, str]) -> None:
        seed, kind = plan
        found = bench.generate(seed=seed, retries=20, **asked[kind])
        if picture_psnr_db(decoded(found), decoded(alone[plan].images[0])) < SAME_DB:
            with lock:
                differ[kind] += 1

    def ideal_s() -> float:
        return sum(count / bench.max_rows * bench.denoise_s(bench.max_rows, side, repeats=10) for side, count in rows.items())

    level = under_load(bench, CLIENTS, requests, one, ideal_s)
    say("mixed: " + ", ".join(f"{name} {value:.3g}" for name, value in level.items()))
    return {
        **level,
        "clients": CLIENTS,
        "requests": dict(Counter(kind for _, kind in requests)),
        "faces_drawn_again": sum(faces_of(alone[plan].details) for plan in requests),
        "rows_needed": sum(rows.values()),
        "pictures_that_differ": differ,
    }
