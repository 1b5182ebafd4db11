"""From a photograph to the aligned face: what is returned, warned of and refused. Real photograph, embedded detector."""

from __future__ import annotations

import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter

from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.face.alignment import TEMPLATE, align_face
from faceclip_serving.face.detectors import Box, Face, YuNet
from faceclip_serving.face.judgement import check_face, measure_frontality, measure_sharpness
from faceclip_serving.face.prepare import aligned_crop, prepare_face

from .test_detectors import ASTRONAUT, EYES_NOSE_MOUTH

DETECT = YuNet()


def portrait() -> Image.Image:
    return Image.open(ASTRONAUT).convert("RGB")


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def face(width: float, landmarks: np.ndarray = TEMPLATE, score: float = 0.95) -> Face:
    return Face(Box(0, 0, width, width), landmarks, score)


def refusal(data: bytes, index: int = 0, aligned: bool = False) -> str:
    with pytest.raises(InvalidRequest) as caught:
        prepare_face(data, index, aligned, DETECT)
    return str(caught.value)


def test_a_photograph_gives_a_crop_and_a_report():
    prepared = prepare_face(ASTRONAUT.read_bytes(), 2, False, DETECT)
    assert prepared.crop.shape == (3, 448, 448) and prepared.crop.dtype == np.float32
    assert 0 <= prepared.crop.min() < 0.1 and 0.9 < prepared.crop.max() <= 1
    report = prepared.report
    assert json.loads(json.dumps(report)) == report
    assert report["photo"] == {"width": 512, "height": 512} and report["detector"] == "yunet" and report["aligned"] is False
    assert np.abs(np.array(report["landmarks"]) - EYES_NOSE_MOUTH).max() < 14
    x, y, width, height = report["box"]
    assert x < EYES_NOSE_MOUTH[:, 0].min() and EYES_NOSE_MOUTH[:, 0].max() < x + width
    assert y < EYES_NOSE_MOUTH[:, 1].min() and EYES_NOSE_MOUTH[:, 1].max() < y + height
    assert report["eye_distance"] == pytest.approx(43, abs=4)
    assert 0.6 < report["score"] <= 1 and report["frontality"] > 0.9 and 0.25 < report["sharpness"] < 0.6
    assert prepared.warnings == []


def test_the_crop_shows_the_face_in_its_place():
    """It is most like the crop made from the points known for this photograph, less like crops 30 pixels away from that one."""
    crop = prepare_face(ASTRONAUT.read_bytes(), 0, False, DETECT).crop
    known = align_face(np.array(portrait()), EYES_NOSE_MOUTH)

    def correlation(other: np.ndarray) -> float:
        a, b = (
            cv2.resize(c.transpose(1, 2, 0)[120:400, 90:360], (27, 28), interpolation=cv2.INTER_AREA) for c in (crop, other)
        )
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    away = [align_face(np.array(portrait()), EYES_NOSE_MOUTH + shift) for shift in np.array([[3, 0], [-3, 0], [0, 3], [0, -3]])]
    assert correlation(known) > max(0.75, *map(correlation, away))


def test_orientation_and_size_do_not_change_the_crop_and_boxes_are_in_the_photographs_pixels():
    plain = prepare_face(encoded(portrait()), 0, False, DETECT)
    exif = Image.Exif()
    exif[0x0112] = 6
    on_its_side = portrait().transpose(Image.Transpose.ROTATE_90)
    turned = prepare_face(encoded(on_its_side, exif=exif), 0, False, DETECT)
    assert turned.report == plain.report and np.array_equal(turned.crop, plain.crop)

    large = portrait().resize((4608, 4608), Image.Resampling.BICUBIC)
    reduced = prepare_face(encoded(large, "JPEG", quality=90), 0, False, DETECT)
    assert reduced.report["photo"] == {"width": 4608, "height": 4608}
    assert np.abs(np.array(reduced.report["landmarks"]) / 9 - EYES_NOSE_MOUTH).max() < 14
    assert np.array(reduced.report["box"]) / 9 == pytest.approx(np.array(plain.report["box"]), abs=6)
    assert reduced.report["eye_distance"] == pytest.approx(387, abs=36)


@pytest.mark.proof
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_an_orientation_that_lies_changes_nothing(orientation):
    plain = prepare_face(encoded(portrait()), 0, False, DETECT)
    exif = Image.Exif()
    exif[0x0112] = orientation  # but the pixels are upright already
    lied = prepare_face(encoded(portrait(), exif=exif), 0, False, DETECT)
    assert lied.warnings == [] and np.abs(lied.crop - plain.crop).mean() < 0.03


def test_messages_about_a_large_photograph_tell_the_pixels_that_were_sent():
    large = Image.new("RGB", (8000, 4200), "#909090")
    message = refusal(encoded(large, "JPEG"))
    assert "no face was found in 8000 x 4200 pixels" in message and "at least 140 pixels wide" in message
    image = np.zeros((448, 448, 3), np.uint8)
    with pytest.raises(
        InvalidRequest, match=r"34 pixels apart, at least 36 are needed and 70 are good, .*; crop the photograph"
    ):
        check_face("face_images[0]", face(300, landmarks=TEMPLATE * (17 / 140.94)), image, factor=2)
    (warning,) = check_face("face_images[0]", face(300, landmarks=TEMPLATE * (25 / 140.94)), image, factor=2)
    assert "eyes 50 pixels apart); 70 are good" in warning


def test_of_two_people_the_larger_is_used_and_the_choice_reported():
    image = Image.new("RGB", (1024, 560), "#909090")
    image.paste(portrait(), (0, 0))
    image.paste(portrait().resize((560, 560)).crop((0, 0, 512, 560)), (512, 0))
    prepared = prepare_face(encoded(image), 1, False, DETECT)
    assert prepared.report["box"][0] > 512
    assert any(w.startswith("face_images[1]: 2 faces of similar size") for w in prepared.warnings)


def test_photographs_without_a_usable_face_are_refused_with_a_cure():
    rocket = portrait().crop((0, 190, 512, 512))
    message = refusal(encoded(rocket), index=1)
    assert message.startswith("face_images[1]: no face was found in 512 x 322 pixels; ") and "face_aligned" in message
    small = portrait().resize((192, 192), Image.Resampling.LANCZOS)
    message = refusal(encoded(small))
    assert "the face is too small" in message and "16 pixels apart, at least 18" in message


def test_blur_is_warned_of_and_measured_whatever_the_face():
    sharp = prepare_face(encoded(portrait()), 0, False, DETECT)
    blurred = prepare_face(encoded(portrait().filter(ImageFilter.GaussianBlur(2))), 0, False, DETECT)
    assert any("blurred" in w for w in blurred.warnings) and not any("blurred" in w for w in sharp.warnings)
    assert blurred.report["sharpness"] < 0.5 * sharp.report["sharpness"]
    assert measure_sharpness(np.full((448, 448, 3), 128, np.uint8)) == 0


def test_a_small_face_is_warned_of():
    prepared = prepare_face(encoded(portrait().resize((350, 350), Image.Resampling.LANCZOS)), 0, False, DETECT)
    assert any("the face is small (eyes 30 pixels apart)" in w for w in prepared.warnings)


def test_doubts_about_a_face_are_worded_one_by_one():
    image = np.zeros((448, 448, 3), np.uint8)
    profile = TEMPLATE + np.array([[0, 0], [0, 0], [60, 0], [0, 0], [0, 0]])
    assert check_face("face_images[0]", face(300), image) == []
    for doubtful, said in (
        (face(300, score=0.62), "doubtful (score 0.62)"),
        (face(300, landmarks=profile), "turned far aside (frontality 0.1"),
        (face(300, landmarks=TEMPLATE - [150, 0]), "33% of the face crop lies outside"),
        (face(300, landmarks=TEMPLATE / 5), "the face is small (eyes 28 pixels"),
    ):
        (warning,) = check_face("face_images[0]", doubtful, image)
        assert said in warning and warning.startswith("face_images[0]: ")


def test_frontality_falls_as_the_nose_leaves_the_middle_and_ignores_tilt_and_size():
    turned = np.array([[0.0, -0.3], [0.3, 0.0]]) + np.eye(2)
    measured = []
    for aside in (0, 15, 30, 60, 120):
        points = TEMPLATE + np.array([[0, 0], [0, 0], [aside, 0], [0, 0], [0, 0]])
        measured.append(measure_frontality(points))
        assert measure_frontality(points @ turned.T * 3 + 50) == pytest.approx(measured[-1])
    assert measured == sorted(measured, reverse=True) and measured[0] > 0.95 and measured[-1] == 0
    assert measured[2] == pytest.approx(1 - 30 / (TEMPLATE[1, 0] - TEMPLATE[0, 0]) * 2, abs=0.02)
    assert measure_frontality(np.zeros((5, 2))) == 0


def test_an_aligned_crop_is_used_as_it_is():
    crop = prepare_face(ASTRONAUT.read_bytes(), 0, False, DETECT).crop
    pixels = np.rint(crop * 255).astype(np.uint8).transpose(1, 2, 0)
    again = prepare_face(encoded(Image.fromarray(pixels)), 0, True, DETECT)
    assert np.array_equal(again.crop, crop)
    assert again.report["aligned"] is True and again.report["score"] > 0.6
    assert again.warnings == []
    for turns in (1, 2, 3):
        turned = prepare_face(encoded(Image.fromarray(np.rot90(pixels, -turns))), 0, True, DETECT)
        assert turned.warnings == [
            f"face_images[0]: the crop is not upright; turn it by {90 * turns} degrees to the left, or leave out face_aligned"
        ]
    doubled = prepare_face(encoded(Image.fromarray(pixels).resize((896, 896), Image.Resampling.BICUBIC)), 0, True, DETECT)
    assert np.abs(doubled.crop - crop).mean() < 0.01
    assert np.array(doubled.report["landmarks"]) == pytest.approx(2 * np.array(again.report["landmarks"]), abs=20)


def test_a_crop_said_to_be_aligned_is_checked():
    message = refusal(encoded(portrait().crop((0, 0, 512, 400))), index=3, aligned=True)
    assert message.startswith("face_images[3]: with face_aligned, expected a square crop of 448 x 448 pixels, got 512 x 400")
    shifted = portrait().crop((140, 30, 340, 230))
    assert any("not aligned" in w for w in prepare_face(encoded(shifted), 0, True, DETECT).warnings)
    nobody = prepare_face(encoded(portrait().crop((0, 300, 200, 500))), 0, True, DETECT)
    assert any("no face was seen" in w for w in nobody.warnings) and nobody.report["score"] is None


def test_an_aligned_crop_is_reduced_without_aliasing():
    checks = (np.indices((2240, 2240)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    crop = aligned_crop("face_images[0]", checks)
    assert crop.shape == (448, 448, 3) and np.abs(crop - 127.5).max() < 13
    assert aligned_crop("face_images[0]", np.full((440, 448, 3), 255, np.uint8)).min() == 255
