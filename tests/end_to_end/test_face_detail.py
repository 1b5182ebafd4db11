"""Faces that are drawn again, by a real server: what is refused, what is told, and that nobody else notices."""

import base64
import json
import urllib.error
import urllib.request

import numpy as np
import pytest

from benchmarks.measure.example import PHOTO
from faceclip import InvalidRequestError, Progress

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


@pytest.mark.parametrize("value", ["much", "", [0.4, 0.5], None, {}])
def test_what_is_no_number_is_refused_over_http_too(server, value):
    body = json.dumps({"prompt": "a castle", "face_detail": value, **STEPS}).encode()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{server.ports.http}/v2/models/faceclip/generate", body, timeout=60)
    assert refused.value.code in (400, 500) and "face_detail" in json.load(refused.value)["error"]


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
