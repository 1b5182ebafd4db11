"""Finding the astronaut, at many sizes and turns; and finding nobody where nobody is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from faceclip_serving.face.alignment import TEMPLATE, apply, fit_similarity
from faceclip_serving.face.detectors import Box, Face, YuNet
from faceclip_serving.face.search import find_faces, move_face

from .test_detectors import ASTRONAUT, EYES_NOSE_MOUTH

DETECT = YuNet()
MAX_ERROR = 15.0
"""Root mean square displacement of the aligned crop, in its pixels: a tenth of the distance between the eyes."""


def turned_portrait(scale: float, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """The astronaut's photograph and its five points, scaled and turned about the middle."""
    side = round(512 * scale)
    picture = np.array(Image.open(ASTRONAUT).convert("RGB").resize((side, side), Image.Resampling.LANCZOS))
    turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), degrees, 1.0)
    turned = cv2.warpAffine(picture, turn, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(turned, np.uint8), apply(turn, (EYES_NOSE_MOUTH + 0.5) * scale - 0.5)


@pytest.mark.proof
@pytest.mark.parametrize(
    ("scale", "degrees"),
    [
        (0.5, 0),
        (0.75, 10),
        (1, 0),
        (1, -10),
        (1, 20),
        (1, -20),
        (2, 0),
        (4, 0),
        (6, 0),
        *((scale, degrees) for degrees in range(45, 360, 45) for scale in (1, 0.6 if degrees % 90 else 2)),
    ],
)
def test_exactly_the_one_face_is_found(scale, degrees):
    image, truth = turned_portrait(scale, degrees)
    (face,) = find_faces(image, DETECT)
    to_crop = fit_similarity(face.landmarks, TEMPLATE)
    expected = fit_similarity(truth, TEMPLATE)
    placed = apply(to_crop, apply(cv2.invertAffineTransform(expected), TEMPLATE))
    assert np.sqrt(((placed - TEMPLATE) ** 2).sum(axis=1).mean()) < MAX_ERROR
    center = np.array([face.box.x + face.box.width / 2, face.box.y + face.box.height / 2])
    assert np.linalg.norm(center - truth.mean(axis=0)) < 0.2 * face.box.width


def test_a_small_face_in_a_large_photograph_is_found():
    image = np.full((1600, 2400, 3), 140, np.uint8)
    portrait, truth = turned_portrait(1.0, 0)
    image[900:1412, 1700:2212] = portrait
    (face,) = find_faces(image, DETECT)
    assert np.abs(face.landmarks[:2] - truth[:2] - [1700, 900]).max() < 5


def test_two_people_are_two_faces_largest_first():
    large, _ = turned_portrait(1.0, 0)
    small, _ = turned_portrait(0.8, 0)
    image = np.full((512, 512 + len(small), 3), 140, np.uint8)
    image[: len(small), : len(small)] = small
    image[:, len(small) :] = large
    first, second = find_faces(image, DETECT)
    assert first.box.x > len(small) > second.box.x and first.box.width > second.box.width


def nobody(kind: str) -> np.ndarray:
    rng = np.random.default_rng(5)
    portrait = np.array(Image.open(ASTRONAUT).convert("RGB"))
    match kind:
        case "flat":
            return np.full((300, 400, 3), 128, np.uint8)
        case "gradient":
            return np.tile(np.linspace(0, 255, 480), (480, 1))[..., None].repeat(3, axis=2).astype(np.uint8)
        case "suit and rocket":
            return np.ascontiguousarray(portrait[190:])
        case "tiny":
            return np.zeros((1, 1, 3), np.uint8)
        case "narrow":
            return rng.integers(0, 256, (3, 900, 3), np.uint8)
    grain = int(kind.removeprefix("noise "))
    coarse = rng.integers(0, 256, (480 // grain, 480 // grain, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (480, 480), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.mark.proof
@pytest.mark.parametrize(
    "kind", ["flat", "gradient", "suit and rocket", "tiny", "narrow", "noise 1", "noise 4", "noise 16", "noise 40"]
)
def test_nobody_is_found_where_nobody_is(kind):
    assert find_faces(nobody(kind), DETECT) == []


def test_pictures_of_a_few_pixels_hold_nobody_however_often_they_are_looked_at():
    rng = np.random.default_rng(1)
    for sides in ((1, 1), (3, 900), (900, 3), (17, 31), (31, 480), (33, 33), (40, 2000)):
        for _ in range(5):
            assert find_faces(rng.integers(0, 256, (*sides, 3), np.uint8), DETECT) == []


def test_a_face_moves_with_its_box_and_points():
    face = Face(Box(10, 20, 40, 60), TEMPLATE, 0.9)
    quarter_turn_doubled = np.array([[0.0, -2.0, 100.0], [2.0, 0.0, 7.0]])
    moved = move_face(face, quarter_turn_doubled)
    assert moved.box == Box(-40, 7, 80, 120)
    assert moved.landmarks == pytest.approx(np.stack([100 - 2 * TEMPLATE[:, 1], 7 + 2 * TEMPLATE[:, 0]], axis=1))
    assert moved.score == 0.9
