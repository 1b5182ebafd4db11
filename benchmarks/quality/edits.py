"""Who is in a picture of `nano` after its face, or its head, was drawn anew by the photograph of somebody else; test people alone.

The judge is the recogniser of the quality table. It was trained on whole portraits of this world, in which hair tells a lot of who somebody
is. Masks are made of the points that the renderer knows: the detector, made for photographs, finds some of these faces only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.variants.sdxl import NANO
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.face.masks import WHITE, mask_of
from faceclip_serving.face.search import find_faces
from training.pictures.dataset import SPLITS
from training.world.people import sample_identity, sample_scene
from training.world.render import render

from ..measure.drawing import save, sheet
from ..measure.pictures import Picture, decoded, png
from ..measure.report import emit, say
from .sweeps import mean_and_error

WEIGHTS = Path("weights/nano")
PROMPT = "A portrait of a person."
KINDS = ("face", "head", "text")
"""Drawn within which mask; `text`: from noise, beside them."""
SHOWN = ("the picture", "the person", "their face in it", "their head in it", "from noise")
_KEPT = 3
"""Pictures of each person by which the judge knows them."""

Call = Callable[..., Picture]
"""Keywords of a request -> its picture."""


def measure(people: int, call: Call, shown: int = 0) -> tuple[dict[str, Any], list[list[Picture]]]:
    """`people` pairs: cosine of the result with whose photograph it was, and with who was in the picture. And rows of `SHOWN`."""
    from training.learning.judges import recognise  # here, since torch takes seconds
    from training.run.weights import read_judges

    from .world import SIDE, drawn_face

    recogniser, _ = read_judges(WEIGHTS)
    first = SPLITS["test"]
    scores: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    rows: list[list[Picture]] = []
    found = 0
    for there, wanted in ((first + 2 * i, first + 2 * i + 1) for i in range(people)):
        kept = [_shots(number) for number in (there, wanted)]
        was, new = (np.mean(recognise(recogniser, each.pictures).numpy(), axis=0) for each in kept)
        scene = sample_scene("edit", there)
        person = sample_identity(there)
        picture = np.asarray(render(person, scene, SIDE).image, np.uint8)
        face = drawn_face(person, scene)
        found += bool(find_faces(picture, YuNet()))
        asked = {"prompt": PROMPT, "face_images": [png(kept[1].crops[0])], "face_aligned": True, "seed": 1}
        made = {"text": call(**asked)}
        for kind in KINDS[:2]:
            mask = mask_of(face, kind, SIDE, SIDE)
            made[kind] = call(**asked, image=png(picture), mask_image=png(mask))
            if (made[kind][mask < WHITE] != picture[mask < WHITE]).any():
                raise RuntimeError(f"{kind}: outside the mask, pixels are not those of the picture that came")
        for kind in KINDS:
            features = recognise(recogniser, made[kind][None]).numpy()[0]
            scores[kind].append((_cosine(features, new), _cosine(features, was)))
        if len(rows) < shown:
            rows.append([picture, kept[1].pictures[0], *(made[kind] for kind in KINDS)])
        say(f"{there} becomes {wanted}: " + ", ".join(f"{kind} {scores[kind][-1][0]:.2f}" for kind in KINDS))
    return {"people": people, "faces_found": found / people, **{kind: _summary(of) for kind, of in scores.items()}}, rows


def _shots(number: int) -> Any:
    from .world import shoot

    return shoot([(sample_identity(number), sample_scene("edit", number, i)) for i in range(_KEPT)])


def _cosine(one: Any, other: Any) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def _summary(scores: list[tuple[float, float]]) -> dict[str, Any]:
    own, was = np.array(scores).T
    return {
        "own_similarity": mean_and_error(own),
        "former_similarity": mean_and_error(was),
        "right_person": round(float((own > was).mean()), 3),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--people", type=int, default=16, metavar="N", help="pictures whose person is replaced (default 16)")
    parser.add_argument("--changes", action="store_true", help="instead: garments, hats and expressions changed by the prompt")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="show the first three")


def run(args: argparse.Namespace) -> int:
    from export.repository.from_nothing import build_repository

    from ..measure import inprocess
    from .changes import measure_changes  # torch

    pipeline = inprocess.load(NANO, CPU, build_repository(NANO, CPU))

    def call(**values: Any) -> Picture:
        return decoded(pipeline(request_tensors(**values))["images"][0])

    if args.changes:
        emit(
            "edits-changes-nano",
            {"variant": NANO.name, "people": args.people, "changes": measure_changes(args.people, call, WEIGHTS)},
        )
        return 0
    document, rows = measure(args.people, call, 3 if args.sheet else 0)
    if args.sheet:
        save(sheet(rows, SHOWN, 160), args.sheet)
    emit("edits-nano", {"variant": NANO.name, **document})
    return 0
