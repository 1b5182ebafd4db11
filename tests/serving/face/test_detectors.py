"""The embedded detector on a real photograph, and how a model file is taken."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceclip_serving.face.alignment import TEMPLATE, fit_similarity
from faceclip_serving.face.detectors import make_detector
from faceclip_serving.face.prepare import prepare_face

ASTRONAUT = Path(__file__).resolve().parents[3] / "examples" / "astronaut.jpg"
EYES_NOSE_MOUTH = np.array([[205.4, 101.0], [248.0, 105.5], [223.9, 128.7], [201.9, 141.3], [243.4, 145.4]])
"""In the astronaut's photograph, pixels; from YuNet, checked by eye."""


def portrait() -> np.ndarray:
    return np.array(Image.open(ASTRONAUT).convert("RGB"))


def test_the_embedded_detector_finds_the_face_and_both_eyes():
    image = portrait()[40:240, 130:330].copy()  # large enough here for the eyes to be seen
    (face,) = make_detector()(image)
    landmarks = face.landmarks + np.array([130, 40])
    assert np.abs(landmarks[:2] - EYES_NOSE_MOUTH[:2]).max() < 5
    assert np.abs(landmarks - EYES_NOSE_MOUTH).max() < 14
    assert 0.6 < face.score <= 1
    tilt = fit_similarity(TEMPLATE, face.landmarks)
    assert 0 < np.degrees(np.arctan2(tilt[1, 0], tilt[0, 0])) < 12  # the eyes were used: the box alone would say 0


def test_without_eyes_the_points_come_from_the_box():
    image = portrait()[40:240, 130:330].copy()
    image[50:72, 60:132] = image[78, 96]  # a bar over the eyes
    faces = make_detector()(image)
    for face in faces:
        tilt = fit_similarity(TEMPLATE, face.landmarks)
        assert tilt[1, 0] == pytest.approx(0, abs=1e-12)


def test_one_detector_serves_many_threads():
    detect = make_detector()
    images = [portrait()[20:260, 100 + shift : 340 + shift].copy() for shift in (0, 8, 16, 24)]
    alone = [detect(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(detect, images * 3))
    for one, other in zip(alone * 3, together, strict=True):
        assert len(one) == len(other) >= 1
        assert all(np.array_equal(a.landmarks, b.landmarks) for a, b in zip(one, other, strict=True))


def test_a_model_file_that_cannot_be_used_is_named(tmp_path):
    missing, wrong = tmp_path / "no.onnx", tmp_path / "wrong.onnx"
    wrong.write_bytes(b"not a network")
    with pytest.raises(ValueError, match=r"no\.onnx': no such file; download"):
        make_detector(missing)
    with pytest.raises(ValueError, match=r"wrong\.onnx': expected OpenCV's YuNet"):
        make_detector(wrong)


@pytest.mark.skipif("FACECLIP_YUNET" not in os.environ, reason="FACECLIP_YUNET names no YuNet model file")
@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_yunet_finds_the_same_points(scale):
    picture = Image.open(ASTRONAUT)
    file = io.BytesIO()
    picture.resize((round(512 * scale),) * 2).save(file, "PNG")
    prepared = prepare_face(file.getvalue(), 0, False, make_detector(Path(os.environ["FACECLIP_YUNET"])))
    assert prepared.report["detector"] == "yunet"
    assert np.abs(np.array(prepared.report["landmarks"]) / scale - EYES_NOSE_MOUTH).max() < 3
