"""Faces that are drawn again, by a real server: what is refused, what is told, and that nobody else notices."""

import base64
import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from benchmarks.measure.example import PHOTO
from benchmarks.measure.pictures import png
from benchmarks.quality.world import shoot
from faceclip import DeadlineExceededError, InvalidRequestError, Progress
from faceclip_serving.contract.operations import Drain
from server.control import ask
from training.world.people import sample_identity, sample_scene

from .callers import metrics, rows, status, until

STEPS = {"num_inference_steps": 4, "seed": 3, "height": 64, "width": 64}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "face_detail: expected a value from 0.0 to 1.0, got nan"),
        (-1.0, "face_detail: expected a value from 0.0 to 1.0, got -1"),
        (2.0, "face_detail: expected a value from 0.0 to 1.0, got 2"),
        (float("inf"), "face_detail: expected a value from 0.0 to 1.0, got inf"),
        (0.1, "face_detail: expected one of 4 num_inference_steps at least, got 0.1 of them, which is none"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(pipe, value, words):
    with pytest.raises(InvalidRequestError) as refused:
        pipe("a castle", face_detail=value, **STEPS)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [("much", "as double"), ("", "as double"), ({}, "as double"), ([0.4, 0.5], "face_detail")],
)
def test_what_is_no_number_is_refused_over_http_by_triton_or_by_us(server, value, words):
    body = json.dumps({"prompt": "a castle", "face_detail": value, **STEPS}).encode()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{server.ports.http}/v2/models/faceclip/generate", body, timeout=60)
    assert words in json.load(refused.value)["error"]


def test_text_is_refused_by_the_client_with_its_name(pipe):
    with pytest.raises(TypeError, match="face_detail: expected a number, got 'much'"):
        pipe("a castle", face_detail="much", **STEPS)


@pytest.mark.parametrize("kind", [{}, {"image": PHOTO, "strength": 0.6}, {"image": PHOTO, "mask": "face", "strength": 0.6}])
def test_without_a_face_in_the_result_the_picture_is_the_usual_one_and_a_warning_says_so(pipe, kind):
    """Seeded weights draw none."""
    usual = pipe("a castle", num_images_per_prompt=2, **kind, **STEPS)
    *steps, found = pipe.stream("a castle", num_images_per_prompt=2, face_detail=0.5, **kind, **STEPS)
    for one, other in zip(found.images, usual.images, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    told = found.details["face_detail"]
    assert told["steps"] == 2 and told["pictures"] == [[], []] and usual.details["face_detail"] is None
    warned = [f"face_detail: no face was found in picture {i}; it is as it was drawn" for i in range(2)]
    assert [each for each in found.warnings if each.startswith("face_detail")] == warned
    assert found.details["timings_s"]["detail"] >= 0 and "detail" not in usual.details["timings_s"]
    assert {step.total for step in steps if isinstance(step, Progress)} == {4 + 2} if not kind else {2 + 2}


def test_json_carries_it(server):
    body = {"prompt": "a castle", "face_detail": 0.5, "face_images": [base64.b64encode(PHOTO.read_bytes()).decode()], **STEPS}
    url = f"http://127.0.0.1:{server.ports.http}/v2/models/faceclip/generate"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode()), timeout=120) as response:
        told = json.loads(json.load(response)["details"])
    assert told["face_detail"]["strength"] == 0.5 and told["parameters"]["face_detail"] == 0.5


# ------------------------------------------------------------------------------------------------------ a face that is found
SMALL, CLOSE = (
    np.asarray(Image.open(PHOTO).convert("RGB").crop(box).resize((128, 128), Image.Resampling.LANCZOS))
    for box in ((0, 0, 512, 512), (100, 0, 380, 280))
)
"""A face of 25 pixels, and one of 45."""
PICTURE = {"image": SMALL, "strength": 0.1, "num_inference_steps": 20, "seed": 1}
EDITED = {
    "prompt": "A portrait of a person.",
    "face_image": png(shoot([(sample_identity(200_001), sample_scene("detail", 1))]).crops[0]),
}


def test_a_small_face_is_found_and_drawn_again_and_nothing_else_is(nano):
    _, pipe = nano
    was = np.asarray(pipe(**EDITED, **PICTURE, face_aligned=True).images[0])
    *steps, found = pipe.stream(**EDITED, **PICTURE, face_aligned=True, face_detail=0.6)
    (face,) = found.details["face_detail"]["pictures"][0]
    assert face["left"] is None and face["width"] < found.details["face_detail"]["small"] == 32
    assert [(step.step, step.total) for step in steps if isinstance(step, Progress)] == [(i, 14) for i in range(1, 15)]
    changed = (np.asarray(found.images[0]) != was).any(axis=2)
    rows, columns = np.nonzero(changed)
    left, top, right, bottom = face["frame"]
    assert changed.sum() > 100 and left <= columns.min() and columns.max() < right and top <= rows.min() and rows.max() < bottom
    assert found.warnings == []
    again = pipe(**EDITED, **PICTURE, face_aligned=True, face_detail=0.6)
    np.testing.assert_array_equal(np.asarray(again.images[0]), np.asarray(found.images[0]))


def test_a_face_larger_than_the_bound_is_left_and_a_warning_says_so(nano):
    _, pipe = nano
    was = pipe(**EDITED, **{**PICTURE, "image": CLOSE}, face_aligned=True)
    found = pipe(**EDITED, **{**PICTURE, "image": CLOSE}, face_aligned=True, face_detail=0.6)
    np.testing.assert_array_equal(np.asarray(found.images[0]), np.asarray(was.images[0]))
    (face,) = found.details["face_detail"]["pictures"][0]
    assert face["left"] == "it is at least 32 pixels wide" and face["width"] > 40 and face["frame"] is None
    assert [each.partition(" that")[0] for each in found.warnings] == ["face_detail: picture 0 has no face"]


def test_each_of_several_pictures_has_its_own_and_text_alone_sharpens_too(nano):
    _, pipe = nano
    two = pipe("A portrait of a person.", num_images_per_prompt=2, **PICTURE, face_detail=0.6)
    assert [len(each) for each in two.details["face_detail"]["pictures"]] == [1, 1]
    second = pipe("A portrait of a person.", **{**PICTURE, "seed": 2}, face_detail=0.6)
    assert np.abs(np.asarray(two.images[1], int) - np.asarray(second.images[0])).max() <= 2


def test_outside_of_the_users_mask_the_picture_stays_the_one_that_came(nano):
    _, pipe = nano
    mask = np.full((128, 128), 255, np.uint8)
    mask[:, :64] = 0
    found = np.asarray(pipe(**EDITED, **PICTURE, face_aligned=True, face_detail=0.6, mask_image=mask).images[0])
    np.testing.assert_array_equal(found[:, :64], PICTURE["image"][:, :64])


@pytest.mark.proof
def test_neighbours_are_the_same_beside_it_and_it_is_beside_them(nano):
    _, pipe = nano
    kinds = [
        {**EDITED, **PICTURE, "face_aligned": True, "face_detail": 0.6},
        {"prompt": "A portrait of a woman.", "seed": 5, "num_inference_steps": 20},
        {**EDITED, **PICTURE, "face_aligned": True},
    ]
    alone = [np.asarray(pipe(**each).images[0]) for each in kinds]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda each: np.asarray(pipe(**each).images[0], int), kinds * 2))
    for i, picture in enumerate(together):
        assert np.abs(picture - alone[i % 3]).max() <= 2


def reached(pipe, steps=200, **more):
    """A stream that has come to its faces, which take so many steps."""
    before = round(steps * PICTURE["strength"])
    stream = pipe.stream(**{**EDITED, **PICTURE, "num_inference_steps": steps}, face_aligned=True, face_detail=1.0, **more)
    for event in stream:
        assert isinstance(event, Progress)
        if event.step > before + 2:
            assert event.total == before + steps
            return stream
    raise AssertionError("it has ended before")


def test_whoever_leaves_while_faces_are_drawn_again_ends_that(nano):
    server, pipe = nano
    before = metrics(server).get('faceclip_requests_total{outcome="cancelled"}', 0)
    reached(pipe).close()
    until(lambda: status(server)["in_flight"] == 0)
    until(lambda: metrics(server)['faceclip_requests_total{outcome="cancelled"}'] == before + 1)
    done = rows(server)
    time.sleep(1)
    assert rows(server) == done


def test_a_deadline_ends_it_there_too(nano):
    server, pipe = nano
    with pytest.raises(DeadlineExceededError):
        for event in reached(pipe, timeout_s=2.0):
            assert isinstance(event, Progress)
    until(lambda: status(server)["in_flight"] == 0)


def test_a_drain_waits_for_it(nano):
    server, pipe = nano
    stream = reached(pipe, steps=50)
    ask(server.connection, Drain())
    try:
        *_, result = stream
        assert result.details["face_detail"]["steps"] == 50
    finally:
        ask(server.connection, Drain(on=False))
    assert status(server)["draining"] is False
