"""Mouths and eyes like a render's: those of other renders are; turned, smeared or broken ones are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from benchmarks.measure.pictures import Picture
from benchmarks.quality.parts import SIDE, Parts, rendered_parts
from training.pictures.dataset import SPLITS
from training.world.people import EXPRESSIONS, sample_identity, sample_scene
from training.world.render import render

Spot = tuple[int, int]


@pytest.fixture(scope="module")
def parts() -> Parts:
    return rendered_parts(150)


@pytest.fixture(scope="module")
def portraits() -> list[tuple[Picture, Spot, Spot]]:
    """Of test people: picture, middle of the left eye and of the mouth."""
    found = []
    for i in range(24):
        scene = replace(sample_scene("like", i, pose=0.3), hat="none", expression=EXPRESSIONS[i % len(EXPRESSIONS)])
        shot = render(sample_identity(SPLITS["test"] + i), scene, SIDE)
        eye, mouth = shot.landmarks[0].astype(int), shot.landmarks[3:].mean(0).astype(int)
        found.append((shot.image, (int(eye[0]), int(eye[1])), (int(mouth[0]), int(mouth[1]))))
    return found


@pytest.fixture(scope="module")
def unharmed(parts: Parts, portraits: list[tuple[Picture, Spot, Spot]]) -> dict[str, float]:
    return parts.shares([picture for picture, _, _ in portraits])


def turned(picture: Picture, spot: Spot) -> Picture:
    """By 30 degrees, within an ellipse."""
    around = cv2.warpAffine(picture, cv2.getRotationMatrix2D(spot, 30, 1), picture.shape[:2], borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.ellipse(np.zeros(picture.shape[:2], np.float32), spot, (15, 9), 0, 0, 360, (1.0,), -1)
    share = cv2.GaussianBlur(inside, (0, 0), 1)[..., None]
    return np.asarray(picture * (1 - share) + around * share, np.uint8)


def smeared(picture: Picture, spot: Spot) -> Picture:
    made, (x, y) = picture.copy(), spot
    part = np.s_[y - 8 : y + 9, x - 14 : x + 15]
    made[part] = cv2.GaussianBlur(picture, (0, 0), 3)[part]
    return made


def broken(picture: Picture, spot: Spot) -> Picture:
    """Its right half 4 pixels lower."""
    made, (x, y) = picture.copy(), spot
    made[y - 9 : y + 10, x : x + 15] = np.roll(picture, 4, 0)[y - 9 : y + 10, x : x + 15]
    return made


@pytest.mark.proof
def test_other_renders_are_like_renders(unharmed: dict[str, float]) -> None:
    assert unharmed["mouths_well_formed"] >= 0.85 and unharmed["eyes_well_formed"] >= 0.8


@pytest.mark.proof
@pytest.mark.parametrize("harm", [turned, smeared, broken])
def test_a_harmed_mouth_or_eye_is_not_and_the_other_part_still_is(
    parts: Parts,
    portraits: list[tuple[Picture, Spot, Spot]],
    unharmed: dict[str, float],
    harm: Callable[[Picture, Spot], Picture],
) -> None:
    mouths = parts.shares([harm(picture, mouth) for picture, _, mouth in portraits])
    eyes = parts.shares([harm(picture, eye) for picture, eye, _ in portraits])
    assert mouths["mouths_well_formed"] <= 0.65 and eyes["eyes_well_formed"] <= 0.65
    assert (
        abs(mouths["eyes_well_formed"] - unharmed["eyes_well_formed"]) <= 0.15
        and abs(eyes["mouths_well_formed"] - unharmed["mouths_well_formed"]) <= 0.15
    )


def test_a_picture_may_have_any_size(parts: Parts, portraits: list[tuple[Picture, Spot, Spot]]) -> None:
    large = [cv2.resize(picture, (256, 256), interpolation=cv2.INTER_LINEAR) for picture, _, _ in portraits]
    assert parts.shares([np.asarray(each, np.uint8) for each in large])["mouths_well_formed"] >= 0.75
