"""What a well-formed face is, by renders: they are within the bound, and the same with an eye or a mouth out of place are beyond it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from benchmarks.measure.pictures import Picture
from benchmarks.quality.form import Form, features, rendered_form
from faceclip_serving.face.alignment import TEMPLATE, apply, fit_similarity, invert
from faceclip_serving.face.detectors import Face, YuNet
from faceclip_serving.face.search import find_faces
from training.dataset import SPLITS
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


def without(picture: Picture, face: Face, point: int) -> Picture:
    """One of the five points, and what is around it, painted over in the colour of the skin between eyes and mouth."""
    back = invert(fit_similarity(face.landmarks, TEMPLATE))
    x, y = apply(back, TEMPLATE[[point]])[0]
    cheek_x, cheek_y = apply(back, np.array([[130.0, 300.0]]))[0].round().astype(int)
    changed = picture.copy()
    colour = tuple(int(value) for value in picture[cheek_y, cheek_x])
    cv2.circle(changed, (round(float(x)), round(float(y))), 9, colour, -1)
    return changed


def test_renders_of_other_people_are_well_formed(form: Form, faces: list[tuple[Picture, Face]]) -> None:
    assert len(faces) >= 9
    assert np.mean([form.holds(*one) for one in faces]) >= 0.75


def test_a_face_that_has_lost_an_eye_is_further_off(form: Form, faces: list[tuple[Picture, Face]]) -> None:
    before = np.array([form.distance(features(*one)) for one in faces])
    after = np.array([form.distance(features(without(*one, point=0), one[1])) for one in faces])
    assert (after > before).mean() >= 0.75 and np.median(after) > np.median(before)


def test_the_bound_is_where_nineteen_of_twenty_others_are(form: Form) -> None:
    assert form.bound > form.distance(form.mean) == 0.0
