"""Which face of a photograph is meant, and what is told of all of them. A group is the same portrait at three sizes."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from PIL import Image, ImageFilter

from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.face.choice import LARGEST, Choice, choices, choose_face, fractions_of
from faceclip_serving.face.detectors import Box, Face, YuNet
from faceclip_serving.face.photos import MAX_SIDE
from faceclip_serving.face.prepare import list_faces, prepare_face
from faceclip_serving.face.references import face_weights

from .test_prepare import encoded, face, portrait

DETECT = YuNet()
SIDES = (512, 400, 300)
"""Of the three portraits in `group`, from left to right."""
NOBODY = np.zeros((32, 32, 3), np.uint8)


@functools.cache
def group() -> bytes:
    image = Image.new("RGB", (sum(SIDES), max(SIDES)), "#909090")
    for i, side in enumerate(SIDES):
        image.paste(portrait().resize((side, side)), (sum(SIDES[:i]), 0))
    return encoded(image)


@functools.cache
def prepared(choice: Choice = LARGEST):
    return prepare_face(group(), 0, False, DETECT, choice=choice)


def columns(i: int) -> tuple[float, float]:
    return sum(SIDES[:i]), sum(SIDES[: i + 1])


def refusal(choice: Choice, data: bytes | None = None) -> str:
    with pytest.raises(InvalidRequest) as caught:
        prepare_face(data or group(), 0, False, DETECT, choice=choice)
    return str(caught.value)


def test_every_face_is_listed_by_size_and_the_largest_is_used():
    report = prepared().report
    assert json.loads(json.dumps(report)) == report
    assert report["chosen"] == 0 and len(report["found"]) == 3
    widths = [each["box"][2] for each in report["found"]]
    assert widths == sorted(widths, reverse=True)
    for i, found in enumerate(report["found"]):
        left, right = columns(i)
        assert left < found["box"][0] < found["landmarks"][0][0] < right
        x, y, width, height = found["box"]
        scaled = np.array(found["fractions"]) * [sum(SIDES), max(SIDES), sum(SIDES), max(SIDES)]
        np.testing.assert_allclose(scaled, [x, y, x + width, y + height], atol=1)
    assert {name: report[name] for name in ("box", "landmarks", "eye_distance", "score", "frontality")} == {
        name: value for name, value in report["found"][0].items() if name != "fractions"
    }


@pytest.mark.parametrize("i", range(3))
def test_a_number_or_a_box_chooses_any_of_them(i):
    found = prepared().report["found"]
    by_number = prepared(Choice(index=i))
    by_box = prepared(Choice(box=tuple(found[i]["fractions"])))
    assert by_number.report["chosen"] == by_box.report["chosen"] == i
    np.testing.assert_array_equal(by_number.crop, by_box.crop)
    assert by_number.report["box"] == found[i]["box"] and by_number.report["found"] == found
    assert not any("similar size" in warning for warning in by_number.warnings + by_box.warnings), "it was chosen"


def test_without_a_choice_the_crop_is_that_of_the_first_and_the_doubt_is_told():
    np.testing.assert_array_equal(prepared().crop, prepared(Choice(index=0)).crop)
    image = Image.new("RGB", (1024, 512), "#909090")
    for left in (0, 512):
        image.paste(portrait(), (left, 0))
    twins = prepare_face(encoded(image), 1, False, DETECT)
    (warning,) = [each for each in twins.warnings if "similar size" in each]
    assert warning.startswith("face_images[1]: 2 faces of similar size") and "face_index or face_boxes" in warning


def test_a_box_about_several_means_the_largest_in_it():
    assert prepared(Choice(box=(0.0, 0.0, 1.0, 1.0))).report["chosen"] == 0
    left = SIDES[0] / sum(SIDES)
    assert prepared(Choice(box=(left, 0.0, 1.0, 1.0))).report["chosen"] == 1


def test_a_face_that_is_seen_only_where_nothing_else_is_looked_at_can_be_chosen_by_its_box():
    """Of a wide picture the smallest face is too small at the size at which the largest is found."""
    image = Image.new("RGB", (4000, 1600), "#909090")
    image.paste(portrait().resize((1600, 1600)), (0, 0))
    image.paste(portrait().resize((240, 240)), (3600, 1200))
    data = encoded(image, "JPEG", quality=95)
    largest = prepare_face(data, 0, False, DETECT)
    assert len(largest.report["found"]) == 1
    small = prepare_face(data, 0, False, DETECT, choice=Choice(box=(0.88, 0.7, 1.0, 1.0)))
    assert small.report["chosen"] == 1 and small.report["box"][0] > 3600
    assert small.report["found"][0]["box"] == largest.report["box"], "the others are listed all the same"


def test_what_is_not_there_is_refused_with_what_is():
    message = refusal(Choice(index=3))
    assert message.startswith("face_index[0]: expected a number from 0 to 2, since 3 faces are in face_images[0]")
    assert "got 3" in message and "faces()" in message
    one = refusal(Choice(index=1), encoded(portrait()))
    assert one.startswith("face_index[0]: expected 0, since 1 face is in face_images[0]")
    message = refusal(Choice(box=(0.0, 0.7, 0.1, 1.0)))
    assert message.startswith("face_boxes[0]: expected a box about a face of face_images[0], got one without; faces are at ")
    assert message.count(";") == 3, "all three places"
    grey = encoded(Image.new("RGB", (300, 300), "#909090"))
    for choice in (LARGEST, Choice(index=2), Choice(box=(0.0, 0.0, 0.5, 0.5))):
        assert "no face was found" in refusal(choice, grey)


def test_a_request_says_it_for_each_photograph_or_for_none():
    assert choices(2, None, None) == [LARGEST, LARGEST] and choices(0, None, None) == []
    assert choices(2, [1, 0], None) == [Choice(index=1), Choice(index=0)]
    assert choices(1, None, [[0.0, 0.0, 1.0, 1.0]]) == [Choice(box=[0.0, 0.0, 1.0, 1.0])]
    with pytest.raises(InvalidRequest, match=r"^face_index: expected one for each of the 3 photographs .* got 1; .* write 0"):
        choices(3, [1], None)
    with pytest.raises(
        InvalidRequest, match=r"^face_boxes: expected one for each of the 1 photographs .* got 2; .* 0, 0, 1, 1"
    ):
        choices(1, None, [[0.0, 0.0, 1.0, 1.0]] * 2)
    with pytest.raises(InvalidRequest, match=r"^face_index: expected none where face_boxes come"):
        choices(1, [0], [[0.0, 0.0, 1.0, 1.0]])


def test_similar_faces_are_those_of_four_fifths():
    def told(*widths: float) -> list[str]:
        return list(choose_face("face_images[2]", [face(each) for each in widths], LARGEST, NOBODY, DETECT).warnings)

    assert told(100) == told(100, 79, 50) == []
    (warning,) = told(100, 90, 81)
    assert warning.startswith("face_images[2]: 3 faces of similar size")


def test_fractions_end_at_the_picture():
    assert fractions_of(Face(Box(-10, 50, 60, 80), np.zeros((5, 2)), 1.0), 100, 200) == [0.0, 0.5, 0.25, 1.0]


def test_all_faces_are_listed_with_what_tells_which_can_be_used():
    image = Image.new("RGB", (700, 512), "#909090")
    image.paste(portrait(), (0, 0))
    image.paste(portrait().resize((180, 180), Image.Resampling.LANCZOS), (520, 300))
    seen = []
    found = list_faces(encoded(image), 0, DETECT, lambda index, pixels: seen.append((index, pixels.shape)))
    assert seen == [(0, (512, 700, 3))]
    assert [each["usable"] for each in found.report["found"]] == [True, False]
    assert all(0 < each["sharpness"] < 1 for each in found.report["found"])
    assert len(found.crops) == 2 and found.thumbnail.shape == (256, 256, 3)
    nobody = list_faces(encoded(Image.new("RGB", (300, 300), "#909090")), 0, DETECT)
    assert nobody.report["found"] == [] and nobody.crops == [], "that is an answer, not an error"


@pytest.mark.proof
def test_what_is_listed_is_doubted_as_it_is_warned_of_when_it_is_drawn():
    """Small, cut off and blurred ones, in a photograph that is reduced before; and one of which there is nothing to doubt."""
    small = Image.new("RGB", (512, 512), "#909090")
    small.paste(portrait().resize((300, 300), Image.Resampling.LANCZOS), (100, 100))
    cut = portrait().crop((0, 90, 512, 512))
    blurred = portrait().filter(ImageFilter.GaussianBlur(4))
    large = blurred.resize((MAX_SIDE + 4, MAX_SIDE + 4), Image.Resampling.BICUBIC)
    told = {}
    for name, image in {"good": portrait(), "small": small, "cut": cut, "blurred": blurred, "large": large}.items():
        data = encoded(image, "JPEG", quality=95) if image is large else encoded(image)
        (face,) = list_faces(data, 3, DETECT).report["found"]
        warned = prepare_face(data, 3, False, DETECT).warnings
        assert [f"face_images[3]: {text}" for text in face["doubts"].values()] == warned, name
        told[name] = set(face["doubts"])
    assert told["good"] == set() and all(told[name] for name in ("small", "cut", "blurred", "large")), told


def test_the_weight_of_a_photograph_is_that_of_the_face_that_was_chosen():
    reports = [prepared(Choice(index=i)).report for i in (0, 2)]
    quality = [report["score"] * report["frontality"] for report in reports]
    assert face_weights(reports, "quality") == pytest.approx([each / sum(quality) for each in quality])
