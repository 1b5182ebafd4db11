"""Nobody slips through as one of several people: consent, lists, checks, the log and the marks see each of them."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceclip_serving.audit.consent import Rule
from faceclip_serving.checks.checks import Checks
from faceclip_serving.checks.policy import PROMPT, read
from faceclip_serving.contract.errors import InvalidRequest, Refused
from faceclip_serving.contract.models import RECALLED
from faceclip_serving.contract.request import parse_request
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.models.people import prepare_shares
from tests.serving.audit.conftest import REFERENCES, record
from tests.serving.contract.test_parameters import raw

from .test_photographs import FEATURES, LASTING, job_of, png, prepared, required, sealed, tokenizers

__all__ = ["prepared", "record", "required", "tokenizers"]
PHOTO, OTHER = np.random.default_rng(3).integers(0, 256, (2, 448, 448, 3), np.uint8)
NAME, OTHERS_NAME = (REFERENCES.of_photo(pixels)[0] for pixels in (PHOTO, OTHER))
LEFT, RIGHT = [0, 0, 0.5, 1], [0.5, 0, 1, 1]


@pytest.fixture
def consent(record):
    """Names of photographs, and changes -> a signed record for them."""
    return lambda id, *references, **changes: record(id=id, references=list(references), **{**LASTING, **changes})


def people(*more):
    """Two people, by photographs."""
    told = [{"faces": [0], "box": LEFT}, {"faces": [1], "box": RIGHT}]
    return json.dumps([{**each, **extra} for each, extra in zip(told, more or ({}, {}), strict=True)])


@pytest.fixture
def two(prepared):
    def ask(*args, **values):
        photos = [png(PHOTO), png(OTHER)]
        return prepared(*args, **{"face_images": photos, "face_aligned": True, "people": people(), **values})

    return ask


def test_each_person_needs_a_record_and_the_log_has_both(two, required, consent):
    anna, ben = consent("c-anna", NAME), consent("c-ben", OTHERS_NAME)
    job = job_of(two(required, people=people({"consent": anna}, {"consent": ben})))
    assert [each["id"] for each in job["consent"]["people"]] == ["c-anna", "c-ben"]
    assert job["audit"]["references"] == [NAME, OTHERS_NAME]
    job = job_of(two(required, people=people({}, {"consent": ben}), consent=json.dumps(anna)))
    assert [each["id"] for each in job["consent"]["people"]] == ["c-anna", "c-ben"], "the request's is for the others"


@pytest.mark.parametrize(
    ("records", "code", "which"),
    [
        (({}, {}), "consent.missing", "face_images[0]"),
        ((("c", NAME), {}), "consent.missing", "face_images[1]"),
        ((("c", NAME), ("d", NAME)), "consent.not_covered", "face_images[1]"),
        ((("c", OTHERS_NAME), ("d", NAME)), "consent.not_covered", "face_images[0]"),
    ],
)
def test_a_second_person_without_consent_is_refused(two, required, consent, records, code, which):
    told = people(*({"consent": consent(*each)} if each else {} for each in records))
    with pytest.raises(Refused, match=rf"^{code}: {which[:-3]}\[{which[-2]}\]") as error:
        two(required, people=told)
    assert error.value.code == code and len(error.value.audit["consent"]["people"]) == 2


def test_the_record_of_the_first_is_none_of_the_second(two, required, consent):
    with pytest.raises(Refused, match=r"^consent\.not_covered: face_images\[1\]"):
        two(required, consent=json.dumps(consent("c", NAME)))
    assert two(required, consent=json.dumps(consent("c", NAME, OTHERS_NAME)))


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    ("changes", "code"),
    [({"adult": False}, "not_adult"), ({"expires": "2026-11-02T00:00:00Z"}, "expired"), ({"signature": "AAAA"}, "signature")],
)
def test_a_record_that_does_not_do_is_refused_whosever_it_is(two, required, consent, place, changes, code):
    records = [consent("c", NAME), consent("d", OTHERS_NAME)]
    bad = {**records[place], **changes} if "signature" in changes else consent("x", NAME, OTHERS_NAME, **changes)
    records[place] = bad
    with pytest.raises(Refused) as error:
        two(required, people=people(*({"consent": each} for each in records)))
    assert error.value.code == f"consent.{code}"


def test_an_identity_among_people_is_checked_by_its_own_record(prepared, required, consent):
    told = json.dumps([
        {"faces": [0], "box": LEFT, "consent": consent("c", OTHERS_NAME)},
        {"identity": 0, "box": RIGHT},
    ])  # fmt: skip
    asked = {"face_images": [png(OTHER)], "face_aligned": True, "people": told}
    inside = consent("inside", NAME)
    outputs = prepared(required, identity=sealed(references=[[NAME]], consent=inside), **asked)
    job = job_of(outputs)
    assert [each["id"] for each in job["consent"]["people"]] == ["c", "inside"] and len(job["audit"]["identities"]) == 1
    assert job["people"] == [[0], [1]] and outputs["face_crops"].shape[0] == outputs[f"{RECALLED}class_token"].shape[0] == 1
    np.testing.assert_array_equal(outputs[f"{RECALLED}class_token"], FEATURES["class_token"])
    with pytest.raises(Refused, match=r"^consent\.missing: identity: "):
        prepared(required, identity=sealed(references=[[NAME]]), **asked)


class Seen(Checks):
    """Notes what is judged."""

    def __init__(self):
        super().__init__(read(), [PROMPT])
        self.prompts, self.photos, self.identities = [], [], []

    def prompt(self, prompt, negative_prompt, faces, further=()):
        self.prompts.append((prompt, faces, list(further)))
        return super().prompt(prompt, negative_prompt, faces, further)

    def photographs(self, thumbnails, crops, trusted=True):
        self.photos.append((len(thumbnails), len(crops)))
        return []

    def identity(self, descriptors, recogniser, which="identity"):
        self.identities.append((recogniser, which))
        return []


def test_checks_see_all_photographs_identities_and_prompts(prepared):
    seen = Seen()
    told = json.dumps([
        {"faces": [0, 2], "box": [0, 0, 0.3, 1], "prompt": "a (red:1.3) hat"},
        {"faces": [1], "box": [0.3, 0, 0.6, 1]},
        {"identity": 0, "box": [0.6, 0, 1, 1], "prompt": "a coat"},
    ])  # fmt: skip
    photos = [png(PHOTO), png(OTHER), png(PHOTO)]
    rule = Rule(references=REFERENCES)
    prompts = prepared(rule, checks=seen, face_images=photos, face_aligned=True, identity=sealed(recogniser="r"), people=told)
    assert seen.prompts == [("a portrait", 4, ["a red hat", "red", "a coat"])]
    assert seen.photos == [(3, 3)] and seen.identities == [("r", "identity")]
    job = job_of(prompts)
    assert job["audit"]["references"] == [NAME, OTHERS_NAME, NAME]
    assert [len(name) for (name,) in job["audit"]["people_prompts"]] == [64, 64]
    assert "hat" not in json.dumps(job["audit"]), "the log has names of prompts, and no text"
    assert len(job["faces"]) == 4 and job["face_weights"] == [0.5, 1.0, 0.5, 1.0] and job["people"] == [[0, 2], [1], [3]]


@pytest.mark.parametrize(
    ("common", "own", "code"),
    [
        ("a beach", "a nude woman", "policy.nudity"),
        ("nude people", "a woman", "policy.nudity"),
        ("a child at the sea", "nude", "policy.minor"),
        ("two people, nude", "a twelve-year-old girl", "policy.minor"),
    ],
)
def test_what_prompts_name_together_is_judged_together(prepared, common, own, code):
    told = people({}, {"prompt": own})
    photos = [png(PHOTO), png(OTHER)]
    with pytest.raises(Refused) as error:
        prepared(checks=Checks(read(), [PROMPT]), prompt=common, face_images=photos, face_aligned=True, people=told)
    assert error.value.code == code


@pytest.mark.parametrize("place", [0, 1])
def test_a_listed_face_is_refused_whosever_it_is(two, place):
    class Listing(Checks):
        def photographs(self, thumbnails, crops, trusted=True):
            return super().photographs([], crops, trusted)

    checks = Listing(read(), [PROMPT])
    listed = iter([place == 0, place == 1])
    checks._faces = lambda crop, trusted: (next(listed), 1.0)
    with pytest.raises(Refused, match=rf"^policy\.face_listed: face_images\[{place}\] shows somebody"):
        two(checks=checks)


def test_shares_come_with_people_alone(two, prepared):
    outputs = two(height=64, width=96)
    assert outputs["shares"].shape == (2, 1, 8, 12) and outputs["shares"].dtype == np.float32
    assert "shares" not in prepared(face_images=[png(PHOTO)], face_aligned=True)


def test_own_prompts_may_be_long_and_weighted(two):
    job = job_of(two(people=people({}, {"prompt": "(hat:1.4), " + "a coat of many colours, " * 20})))
    assert job["prompt_chunks"]["people[1]: prompt"] > 1 and any(each["weights"] for each in job["encodings"])
    with pytest.raises(InvalidRequest, match=r"^people\[1\]: prompt: "):
        two(people=people({}, {"prompt": "(hat:1.4"}))


def shares_at(boxes, side=256):
    told = json.dumps([{"faces": [k], "box": [end / side for end in box]} for k, box in enumerate(boxes)])
    request = parse_request(TINY_SDXL, raw(people=told, face_images=[b"photo"] * len(boxes), height=side, width=side))
    return prepare_shares(TINY_SDXL, request, [], {})["shares"]


@pytest.mark.parametrize(
    ("boxes", "others"),
    [
        ([(8, 0, 13, 128), (13, 0, 256, 128), (13, 0, 128, 256)], ["people[1] and people[2]"]),
        ([(0, 8, 128, 13), (0, 13, 128, 256), (0, 13, 256, 128)], ["people[1] and people[2]"]),
        ([(0, 0, 128, 256), (0, 0, 128, 256)], ["people[1]"]),
    ],
)
def test_a_place_that_others_share_all_over_is_refused_and_all_of_them_are_named(boxes, others):
    with pytest.raises(InvalidRequest, match=r"^people\[0\]: box: expected some place of their own, ") as error:
        shares_at(boxes)
    assert all(f"shared with {names} all over; move one of them" in str(error.value) for names in others)


PART = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(1, 24), st.integers(1, 24)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


@given(boxes=st.lists(PART, min_size=1, max_size=3))
@settings(max_examples=300)
def test_places_of_any_people_are_taken_or_refused_in_words(boxes):
    try:
        shares = shares_at(boxes, 64)
    except InvalidRequest as error:
        assert re.match(
            r"people\[\d\]: box: expected (some place of their own, got one that is shared with people\[\d\]|a part)",
            str(error),
        )
    else:
        assert shares.shape == (len(boxes), 1, 8, 8) and (shares.sum(0) <= 1 + 1e-6).all()
