"""The parameter `people`: what it takes, and that every refusal names the person and the key."""

import json

import numpy as np
import pytest

from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.people import MOST_PEOPLE, check_files_of
from faceclip_serving.contract.request import parse_request, request_tensors
from faceclip_serving.contract.variants.sdxl import TINY_SDXL

LEFT, RIGHT = [0, 0, 0.5, 1], [0.5, 0, 1, 1]
ONE, OTHER = {"faces": [0], "box": LEFT}, {"faces": [1], "box": RIGHT}


def people(text):
    text = text if isinstance(text, str) else json.dumps(text)
    return parse_request(TINY_SDXL, request_tensors(prompt="a", people=text)).people


def test_what_is_left_out_has_no_value_and_the_weight_is_one():
    told = people([ONE, {"identity": 0, "mask": 1, "prompt": "a woman", "weight": 0.5}])
    assert told[0] == {
        **{"faces": [0], "identity": None, "box": LEFT, "mask": None, "prompt": None, "weight": 1.0, "consent": None}
    }
    assert told[1]["identity"] == 0 and told[1]["mask"] == 1 and told[1]["box"] is None and told[1]["weight"] == 0.5
    assert parse_request(TINY_SDXL, request_tensors(prompt="a")).people is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "people: expected JSON"),
        ("{", "people: expected JSON, got text that is not"),
        ("[" * 100_000, "people: expected a JSON list of objects, got one nested too deeply"),
        ("{}", "people: expected a JSON list, got dict"),
        ("null", "people: expected a JSON list, got NoneType"),
        ("[]", "people: expected 1 to 4 people, got 0"),
        ([ONE] * (MOST_PEOPLE + 1), "people: expected 1 to 4 people, got 5"),
        ([1], "people[0]: expected a JSON object, got int"),
        ([ONE, {**OTHER, "bx": 1}], "people[1]: expected some of faces, identity, box, mask, prompt, weight, consent, got 'bx'"),
        ([ONE, {"box": RIGHT}], "people[1]: faces: expected faces or identity, got neither"),
        ([ONE, {**OTHER, "identity": 0}], "people[1]: faces: expected faces or identity, got both"),
        ([{"faces": [0]}], "people[0]: box: expected box or mask, got neither"),
        ([{**ONE, "mask": 0}], "people[0]: box: expected box or mask, got both"),
        ([{**ONE, "faces": []}], "people[0]: faces: expected a list of 1 to 4, got 0"),
        ([{**ONE, "faces": 0}], "people[0]: faces: expected a list of 1 to 4, got 0"),
        ([{**ONE, "faces": [0.5]}], "people[0]: faces[0]: expected a whole number"),
        ([{**ONE, "faces": [-1]}], "people[0]: faces[0]: expected"),
        ([{**ONE, "faces": [True]}], "people[0]: faces[0]: expected"),
        ([{**ONE, "faces": ["0"]}], "people[0]: faces[0]: expected"),
        ([{"identity": [0], "box": LEFT}], "people[0]: identity: expected"),
        ([{"faces": [0], "mask": "a"}], "people[0]: mask: expected"),
        ([{**ONE, "box": [0, 0, 1]}], "people[0]: box: expected a list of four numbers, got [0, 0, 1]"),
        ([{**ONE, "box": "0011"}], "people[0]: box: expected a list of four numbers"),
        ([{**ONE, "box": [0, 0, 1, "1"]}], "people[0]: box: expected a list of four numbers"),
        ([{**ONE, "box": [0, 0, 1, True]}], "people[0]: box: expected a list of four numbers"),
        ([{**ONE, "box": [0, 0, 1, 10**400]}], "people[0]: box: expected a list of four numbers"),
        ([{**ONE, "box": [0, 0, 1, None]}], "people[0]: box: expected a list of four numbers"),
        ([{**ONE, "box": [0, 0, 1.5, 1]}], "people[0]: box: expected fractions of the picture from 0 to 1"),
        ([{**ONE, "box": [0, 0, float("nan"), 1]}], "people[0]: box: expected fractions of the picture from 0 to 1, got 0, 0, nan, 1"),
        ([{**ONE, "box": [0, -float("inf"), 1, 1]}], "people[0]: box: expected fractions"),
        ([{**ONE, "box": [0.5, 0, 0.5, 1]}], "people[0]: box: expected left < right"),
        ([{**ONE, "box": [1, 1, 0, 0]}], "people[0]: box: expected left < right"),
        ([{**ONE, "weight": float("nan")}], "people[0]: weight: expected a value from 0.0 to 2.0, got nan"),
        ([{**ONE, "weight": 2.5}], "people[0]: weight: expected"),
        ([{**ONE, "weight": -1}], "people[0]: weight: expected"),
        ([{**ONE, "weight": "1"}], "people[0]: weight: expected"),
        ([{**ONE, "prompt": ""}], "people[0]: prompt: a text is required"),
        ([{**ONE, "prompt": 3}], "people[0]: prompt: expected a text, got 3"),
        ([{**ONE, "prompt": "a" * 10_001}], "people[0]: prompt: at most 10000 characters"),
        ('[{"faces": [0], "box": [0, 0, 1, 1], "prompt": "a \\ud800"}]', "people[0]: prompt: expected text that UTF-8 can carry"),
        ([{**ONE, "consent": "{}"}], "people[0]: consent: expected a JSON object, got str"),
        ([{**ONE, "consent": {"id": "c"}}], "people[0]: consent: expected id, subject"),
    ],
)  # fmt: skip
def test_what_is_none_is_refused_by_person_and_key(text, words):
    with pytest.raises(InvalidRequest) as error:
        people(text)
    assert str(error.value).startswith(words)


@pytest.mark.parametrize(
    ("told", "counts", "words"),
    [
        ([ONE, OTHER], {"face_images": 1}, "people[1]: faces: expected a number below 1, of face_images that came, got 1"),
        ([ONE], {}, "people[0]: faces: expected a number below 0, of face_images"),
        ([{**ONE, "faces": [0, 0]}], {"face_images": 1}, "people[0]: faces: face_images[0] is people[0]'s already"),
        ([ONE, {**OTHER, "faces": [0]}], {"face_images": 1}, "people[1]: faces: face_images[0] is people[0]'s already"),
        ([ONE], {"face_images": 2}, "people: expected each file to be somebody's, got face_images[1]"),
        ([ONE], {"face_images": 1, "identity": 1}, "people: expected each file to be somebody's, got identity[0]"),
        ([ONE], {"face_images": 1, "people_masks": 1}, "people: expected each file to be somebody's, got people_masks[0]"),
        ([{"identity": 1, "box": LEFT}], {"identity": 1}, "people[0]: identity: expected a number below 1"),
        ([{"faces": [0], "mask": 0}], {"face_images": 1}, "people[0]: mask: expected a number below 0, of people_masks"),
        (
            [{**ONE, "faces": [0, 1, 2, 3]}, {"identity": 0, "box": RIGHT}],
            {"face_images": 4, "identity": 1},
            "people: at most 4 photographs and identities are used together, got 5",
        ),
        ([], {"people_masks": 1}, "people_masks: expected none where people does not say whose they are"),
        ([], {"identity": 2}, "identity: expected one where people does not say who is where, got 2"),
        ([], {"identity": 1, "face_images": 1}, "identity: expected none where face_images come"),
    ],
)
def test_each_file_belongs_to_one_person_and_each_person_has_theirs(told, counts, words):
    known = people(told) if told else []
    with pytest.raises(InvalidRequest) as error:
        check_files_of(known, counts, 4)
    assert str(error.value).startswith(words)


def test_files_that_belong_to_one_each_are_taken():
    check_files_of(people([ONE, {"identity": 0, "mask": 0}]), {"face_images": 1, "identity": 1, "people_masks": 1}, 4)
    check_files_of([], {"face_images": 4}, 4)


def test_it_is_one_text():
    with pytest.raises(InvalidRequest, match="people: "):
        parse_request(TINY_SDXL, {**request_tensors(prompt="a"), "people": np.array([b"[]", b"[]"], object)})
