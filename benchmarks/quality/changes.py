"""A garment, a hat or an expression changed by the prompt within a mask, beside the renderer's picture of the same change; test people.

A garment and a hat are drawn where both renders differ, and some pixels around; an expression within the face, as `mask="face"` has it,
and beside that within the difference too, which is little more than the mouth. The judges are those of the quality table. Glasses are no
attribute that they read, so none are changed here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from faceclip_serving.face.masks import WHITE, Grey, mask_of
from training.learning.judges import ATTRIBUTES, classify, recognise
from training.pictures.dataset import SPLITS
from training.run.weights import read_judges
from training.world.captions import describe
from training.world.people import sample_identity, sample_scene

from ..measure.pictures import Picture, png
from ..measure.report import say
from .sweeps import mean_and_error
from .world import SIDE, drawn_face, shoot

CHANGES = {
    "garment_colour": ("garment_colour", "difference"),
    "hat": ("hat", "difference"),
    "expression": ("expression", "face"),
    "expression_closely": ("expression", "difference"),
}
"""What is changed, within which mask: `face`, or the `difference` of the two renders."""
MADE = ("before", "edited", "rendered")
"""The picture that came, what became of it, and the renderer's own."""
_KEPT = 3
"""Pictures of each person by which the judge knows them; the first is the photograph that is sent."""
_AROUND = 4
"""Pixels by which the mask is wider than what differs."""


def measure_changes(people: int, call: Callable[..., Picture], weights: Any) -> dict[str, Any]:
    """Per change and picture of `MADE`: cosine to the person, and the share that shows what was asked for; mean and standard error.

    Raises `RuntimeError` where a pixel outside of the mask differs.
    """
    recogniser, classifier = read_judges(weights)
    likeness: dict[str, list[list[float]]] = {name: [] for name in CHANGES}
    shown: dict[str, list[list[float]]] = {name: [] for name in CHANGES}
    for number in range(SPLITS["test"], SPLITS["test"] + people):
        person = sample_identity(number)
        kept = shoot([(person, sample_scene("changes", number, i)) for i in range(_KEPT)])
        who = np.mean(recognise(recogniser, kept.pictures).numpy(), axis=0)
        scene = replace(sample_scene("changed", number), hat="none")
        for name, (attribute, within) in CHANGES.items():
            values = [value for value in ATTRIBUTES[attribute] if value not in (getattr(scene, attribute), "none")]
            change: dict[str, Any] = {attribute: values[number % len(values)]}
            wanted = replace(scene, **change)
            before, rendered = shoot([(person, scene), (person, wanted)]).pictures
            mask = mask_of(drawn_face(person, scene), "face", SIDE, SIDE) if within == "face" else _around(before, rendered)
            edited = call(
                prompt=describe(person, wanted), face_images=[png(kept.crops[0])], face_aligned=True, seed=1,
                image=png(before), mask_image=png(mask),
            )  # fmt: skip
            if (edited[mask < WHITE] != before[mask < WHITE]).any():
                raise RuntimeError(f"{name}: outside the mask, pixels are not those of the picture that came")
            made = np.stack([before, edited, rendered])
            features = recognise(recogniser, made).numpy()
            asked = ATTRIBUTES[attribute].index(getattr(wanted, attribute))
            likeness[name].append([float(f @ who / (np.linalg.norm(f) * np.linalg.norm(who))) for f in features])
            shown[name].append((classify(classifier, made)[attribute] == asked).astype(float).tolist())
        say(f"{number}: " + ", ".join(f"{name} {shown[name][-1][1]:.0f}" for name in CHANGES))
    return {
        name: {
            made: {
                "id_similarity": mean_and_error(np.array(likeness[name])[:, i]),
                "text_accuracy": mean_and_error(np.array(shown[name])[:, i]),
            }
            for i, made in enumerate(MADE)
        }
        for name in CHANGES
    }


def _around(before: Picture, rendered: Picture) -> Grey:
    """White where the two differ, and `_AROUND` pixels more."""
    differs = (np.abs(before.astype(int) - rendered).max(axis=2) > 2).astype(np.uint8) * 255
    return np.asarray(cv2.dilate(differs, np.ones((2 * _AROUND + 1,) * 2, np.uint8)), np.uint8)
