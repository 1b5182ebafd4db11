"""What a well-formed face is, by renders: they are within the bound, and the same with the mouth out of place are further off."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from benchmarks.measure.pictures import Picture
from benchmarks.quality.form import Form, features, rendered_form
from faceclip_serving.face.detectors import Face, YuNet
from faceclip_serving.face.search import find_faces
from training.pictures.dataset import SPLITS
from training.world.people import sample_identity, sample_scene
from training.world.render import render


@pytest.fixture(scope="module")
def form() -> Form:
    return rendered_form(60)


@pytest.fixture(scope="module")
def faces() -> list[tuple[Picture, Face]]:
    """Frontal ones of other people than the form is fitted to."""
    detect, found = YuNet(), []
    for i in range(12):
        large = render(sample_identity(SPLITS["test"] + i), sample_scene("formed", i, pose=0.2), 256).image
        picture = np.asarray(cv2.resize(large, (128, 128), interpolation=cv2.INTER_AREA), np.uint8)
        found += [(picture, face) for face in find_faces(picture, detect)[:1]]
    return found


def slid(picture: Picture, face: Face, pixels: int) -> tuple[Picture, Face]:
    """All below the nose moved aside, the corners of the mouth with it."""
    below = round(float(face.landmarks[2:, 1].mean()))
    moved, landmarks = picture.copy(), face.landmarks.copy()
    moved[below:] = np.roll(picture[below:], pixels, axis=1)
    landmarks[3:, 0] += pixels
    return moved, replace(face, landmarks=landmarks)


def test_renders_of_other_people_are_well_formed(form: Form, faces: list[tuple[Picture, Face]]) -> None:
    assert len(faces) >= 9
    assert np.mean([form.holds(*one) for one in faces]) >= 0.75


def test_a_face_whose_mouth_slid_aside_is_further_off(form: Form, faces: list[tuple[Picture, Face]]) -> None:
    before = np.array([form.distance(features(*one)) for one in faces])
    after = np.array([form.distance(features(*slid(*one, pixels=7))) for one in faces])
    assert (after > before).mean() >= 0.75 and np.median(after) > 1.5 * np.median(before)
    assert np.mean([form.holds(*slid(*one, pixels=12)) for one in faces]) <= 0.5


def test_the_bound_is_where_nineteen_of_twenty_others_are(form: Form) -> None:
    assert form.bound > form.distance(form.mean) == 0.0
