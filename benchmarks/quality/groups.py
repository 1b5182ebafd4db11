"""Is each of several people in a picture of `nano` who they should be? Test people alone, side by side, each as wide as a portrait.

Pictures are as many portraits wide as there are people. The judge is the recogniser of the quality table, which sees each person's part of
the picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.variants.variant import Variant
from training.pictures.dataset import SPLITS

from ..measure.drawing import save
from ..measure.pictures import Picture, decoded, png
from ..measure.report import say, write_document
from .edits import PROMPT, _cosine, _shots
from .report import RECORD
from .sweeps import mean_and_error

COUNTS = (2, 3)
"""How many are together; the first is what is promised."""

Call = Callable[..., Picture]
"""Keywords of a request -> its picture."""


def measure_group(
    count: int, groups: int, call: Call, recognise: Callable[[Any], Any], side: int
) -> tuple[dict[str, Any], list[Picture]]:
    """`groups` pictures of `count` people each: cosine of each person's part with who they should be, and with the nearest other.

    And the pictures. `side`: of a portrait, pixels.
    """
    own, others, pictures = [], [], []
    boxes = [[k / count, 0, (k + 1) / count, 1] for k in range(count)]
    for group in range(groups):
        shots = [_shots(SPLITS["test"] + group * count + k) for k in range(count)]
        who = [np.mean(recognise(each.pictures), axis=0) for each in shots]
        picture = call(
            prompt=PROMPT,
            face_images=[png(each.crops[0]) for each in shots],
            face_aligned=True,
            people=json.dumps([{"faces": [k], "box": box} for k, box in enumerate(boxes)]),
            width=count * side,
            height=side,
            seed=group,
        )
        found = recognise(np.stack([picture[:, k * side : (k + 1) * side] for k in range(count)]))
        for k, features in enumerate(found):
            likeness = [_cosine(features, person) for person in who]
            own.append(likeness.pop(k))
            others.append(max(likeness))
        pictures.append(picture)
    right = (np.array(own) > np.array(others)).astype(float)
    told = {
        "pictures": groups,
        "right_person": mean_and_error(right),
        "own_similarity": mean_and_error(np.array(own)),
        "other_similarity": mean_and_error(np.array(others)),
    }
    say(f"{count} people: {told}")
    return told, pictures


def evaluate_groups(variant: Variant, groups: int, folder: Path, weights: Path | None = None) -> dict[str, Any]:
    """`measure_group` of every count; the figures of the first stand in front. Writes them and a sheet to `folder`."""
    from export.repository.from_nothing import build_repository  # here, since torch takes seconds
    from training.learning.judges import recognise
    from training.run.weights import read_judges

    from ..measure import inprocess

    recogniser, _ = read_judges(weights or Path("weights") / variant.name)
    side = variant.defaults.width
    pipeline = inprocess.load(variant, CPU, build_repository(variant, CPU))

    def call(**values: Any) -> Picture:
        return decoded(pipeline(request_tensors(**values))["images"][0])

    found = {
        count: measure_group(count, groups, call, lambda pictures: recognise(recogniser, pictures).numpy(), side)
        for count in COUNTS
    }
    save(np.concatenate(found[COUNTS[0]][1][:4]), folder / "people.png")
    by_count = {str(count): told for count, (told, _) in found.items()}
    first = by_count[str(COUNTS[0])]
    document = {
        "variant": variant.name,
        **{name: first[name][0] for name in ("right_person", "own_similarity", "other_similarity")},
        "by_people": by_count,
    }
    write_document(folder / RECORD, document)
    return document
