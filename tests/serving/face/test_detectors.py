"""The detector on a real photograph."""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceclip_serving.face.detectors import MODEL, YuNet
from faceclip_serving.face.prepare import prepare_face

ASTRONAUT = Path(__file__).resolve().parents[3] / "examples" / "astronaut.jpg"
EYES_NOSE_MOUTH = np.array([[205.4, 101.0], [248.0, 105.5], [223.9, 128.7], [201.9, 141.3], [243.4, 145.4]])
"""In the astronaut's photograph, pixels; from YuNet, checked by eye."""


def portrait() -> np.ndarray:
    return np.array(Image.open(ASTRONAUT).convert("RGB"))


def test_one_detector_serves_many_threads():
    detect = YuNet()
    images = [portrait()[20:260, 100 + shift : 340 + shift].copy() for shift in (0, 8, 16, 24)]
    alone = [detect(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(detect, images * 3))
    for one, other in zip(alone * 3, together, strict=True):
        assert len(one) == len(other) >= 1
        assert all(np.array_equal(a.landmarks, b.landmarks) for a, b in zip(one, other, strict=True))


def test_the_file_is_opencvs_own():
    found = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    assert found == "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"


def test_a_model_file_that_cannot_be_used_is_named(tmp_path):
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"not a network")
    with pytest.raises(ValueError, match=r"wrong\.onnx': expected OpenCV's YuNet"):
        YuNet(wrong)


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_the_same_points_are_found_at_any_scale(scale):
    picture = Image.open(ASTRONAUT)
    file = io.BytesIO()
    picture.resize((round(512 * scale),) * 2).save(file, "PNG")
    prepared = prepare_face(file.getvalue(), 0, False, YuNet())
    assert prepared.report["detector"] == "yunet" and (scale < 1 or prepared.warnings == [])
    assert np.abs(np.array(prepared.report["landmarks"]) / scale - EYES_NOSE_MOUTH).max() < 4
