"""Sealed identities on their way through `prepare`: what is noted, which consent counts, and who is on a list meanwhile."""

import io
import json
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from export.paths import ROOT
from faceclip_serving.audit.consent import NOT_ASKED, Rule
from faceclip_serving.audit.identities import Identities, Identity
from faceclip_serving.audit.revoked import Revoked
from faceclip_serving.checks.checks import Checks
from faceclip_serving.checks.policy import PROMPT, read
from faceclip_serving.contract.errors import InvalidRequest, Refused
from faceclip_serving.contract.models import RECALLED
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.models.photographs import prepare_identity, prepare_list
from faceclip_serving.models.prepare import prepare
from faceclip_serving.models.prompts import load_tokenizer
from tests.serving.audit.conftest import KEY, PHOTO, REFERENCES, record

__all__ = ["record"]
SEALER = Identities((bytes(range(32)),), TINY_SDXL.name, "w", TINY_SDXL.face_features)
FEATURES = {
    tensor.name: np.random.default_rng(1).standard_normal(tensor.shape({"faces": 1})).astype(np.float32)
    for tensor in TINY_SDXL.face_features
}
NAME = REFERENCES.of_photo(PHOTO)[0]
LASTING = {"expires": "2099-01-01T00:00:00Z"}


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def sealed(**changes):
    return SEALER.seal(Identity(TINY_SDXL.name, "w", FEATURES, datetime.now(UTC).isoformat(), 1, **changes))


@pytest.fixture(scope="module")
def tokenizers(repository):
    return [load_tokenizer(repository / "prepare" / "1" / tokens.tokenizer) for tokens in TINY_SDXL.tokens]


@pytest.fixture
def prepared(tokenizers):
    def made(rule=NOT_ASKED, checks=None, identities=SEALER, **values):
        arrays = request_tensors(**{"prompt": "a portrait", **values})
        return prepare(TINY_SDXL, tokenizers, YuNet(), "digest", arrays, checks=checks, rule=rule, identities=identities)

    return made


def job_of(outputs):
    return json.loads(outputs["job"][0])


@pytest.fixture
def required(tmp_path):
    (tmp_path / "revoked").touch(0o600)
    return Rule("require", (KEY.public_key(),), references=REFERENCES, revoked=Revoked(tmp_path / "revoked"))


def test_an_identity_takes_the_place_of_a_photograph(prepared):
    outputs = prepared(identity=sealed(references=[[NAME]]))
    for name, array in FEATURES.items():
        np.testing.assert_array_equal(outputs[RECALLED + name], array)
    job = job_of(outputs)
    assert job["face_weights"] == [1.0] and job["rows"].keys() == {"unconditional", "identity"}
    assert outputs["face_index"].tolist() == [[-1], [0]]
    (told,) = job["faces"]
    assert told["identity"].keys() == {"id", "photographs", "made", "expires"} and job["audit"]["identities"] == [
        told["identity"]["id"]
    ]
    assert job["audit"]["references"] == [NAME] and job["warnings"] == []
    assert not any(name.startswith(RECALLED) for name in prepared()), "requests without one carry nothing of it"


def test_what_needs_a_photograph_has_no_effect_with_an_identity_and_what_needs_a_face_has(prepared):
    told = job_of(prepared(identity=sealed(), face_aligned=True, face_index=[1], face_weighting="quality", blend_weight=0.5))
    assert [each.partition(":")[0] for each in told["warnings"]] == ["face_aligned", "face_weighting", "face_index"]
    assert "identity" in told["rows"] and "prefixed_text" in told["rows"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"identity": b"hello, I am a text"}, "identity: expected a sealed identity"),
        ({"identity": sealed()[:500]}, "identity: the identity is cut off"),
        ({"identity": b"https://example.com/anna.faceid"}, "identity: expected a sealed identity, got a URL"),
        ({"identity": sealed(), "face_images": [png(PHOTO)]}, "identity: expected none where face_images come"),
        ({"identity": sealed(), "identities": None}, "identity: this server takes none"),
    ],
)
def test_what_is_no_identity_here_is_refused_in_words(prepared, values, words):
    with pytest.raises(InvalidRequest) as error:
        prepared(**values)
    assert str(error.value).startswith(words)


def test_the_consent_it_was_made_with_counts_at_each_use(prepared, required, record):
    mine = record(references=[NAME], **LASTING)
    identity = sealed(references=[[NAME]], consent=mine)
    assert job_of(prepared(required, identity=identity))["consent"]["id"] == "c-1"
    assert job_of(prepared(identity=identity))["consent"] == {"mode": "off", "id": None}
    required.revoked.add("subject", "S-1042")
    for mode in ("require", "record"):
        rule = Rule(mode, required.keys, references=REFERENCES, revoked=required.revoked)
        with pytest.raises(Refused) as error:
            prepared(rule, identity=identity)
        assert error.value.code == "consent.revoked" and error.value.audit["identities"]
    anew = json.dumps(record(id="c-2", subject="S-1042b", references=[NAME], **LASTING))
    assert job_of(prepared(required, identity=identity, consent=anew))["consent"]["id"] == "c-2"


@pytest.mark.parametrize(
    ("inside", "came", "code"),
    [
        ({"references": [[NAME]]}, None, "consent.missing"),
        ({}, {"references": [NAME]}, "consent.not_covered"),
        ({"references": [[NAME], ["f" * 64]]}, {"references": [NAME]}, "consent.not_covered"),
        ({"references": [[NAME]]}, {"references": [NAME], "expires": "2026-11-02T00:00:00Z"}, "consent.expired"),
    ],
)
def test_an_identity_that_is_not_covered_is_refused_like_a_photograph(prepared, required, record, inside, came, code):
    consent = {} if came is None else {"consent": json.dumps(record(**{**LASTING, **came}))}
    with pytest.raises(Refused) as error:
        prepared(required, identity=sealed(**inside), **consent)
    assert error.value.code == code


def test_an_identity_and_a_picture_to_change_may_have_a_record_each(prepared, required, record):
    other = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    theirs = json.dumps(record(id="c-9", references=[REFERENCES.of_photo(other)[0]], **LASTING))
    identity = sealed(references=[[NAME]], consent=record(references=[NAME], **LASTING))
    told = job_of(prepared(required, identity=identity, image=png(other), consent=theirs))
    assert told["consent"]["id"] == "c-9" and told["audit"]["references"] == [NAME, REFERENCES.of_photo(other)[0]]
    with pytest.raises(Refused, match=r"^consent\.missing: image: "):
        prepared(required, identity=identity, image=png(other))


def test_its_prompt_is_that_of_a_request_with_a_face_and_its_descriptors_are_compared(prepared):
    class Asked(Checks):
        def prompt(self, prompt, negative_prompt, faces, further):
            asked.append(faces)
            return []

        def identity(self, descriptors, recogniser, which):
            asked.append((descriptors, recogniser))
            return []

    asked = []
    prepared(checks=Asked(read(), [PROMPT]), identity=sealed(descriptors=[[0.5] * 128], recogniser="r"))
    assert asked == [1, ([[0.5] * 128], "r")]


# -------------------------------------------------------------------------------------------------------------------- made of
def test_what_an_identity_is_made_of_is_told_with_its_names_and_its_consent(required, record):
    photo = np.asarray(Image.open(ROOT / "examples" / "portrait.png").convert("RGB").resize((448, 448)))
    name = REFERENCES.of_photo(photo)
    mine = record(references=[name[0]], **LASTING)
    values = {"face_images": [png(photo)], "face_aligned": True, "consent": json.dumps(mine)}
    outputs = prepare_identity(TINY_SDXL, YuNet(), "digest", request_tensors(**values), rule=required)
    subject = json.loads(outputs["subject"][0])
    assert subject == {"photographs": 1, "consent": mine, "references": [list(name)], "descriptors": [], "recogniser": ""}
    assert outputs["face_crops"].shape == (1, 448, 448, 3) and job_of(outputs)["consent"]["id"] == "c-1"
    del values["consent"]
    with pytest.raises(Refused, match=r"^consent\.missing: face_images\[0\]"):
        prepare_identity(TINY_SDXL, YuNet(), "digest", request_tensors(**values), rule=required)
    listed = prepare_list(TINY_SDXL, YuNet(), "digest", request_tensors(face_images=[png(photo)]), rule=required)
    assert len(job_of(listed)["faces"][0]["found"]) == 1, "to say where a face is pictures nobody"
    nameless = prepare_identity(TINY_SDXL, YuNet(), "digest", request_tensors(**values))
    assert json.loads(nameless["subject"][0])["references"] == []


@pytest.mark.parametrize("look", [prepare_list, prepare_identity])
def test_without_a_photograph_there_is_nothing_to_look_at(look):
    with pytest.raises(InvalidRequest, match=r"^face_images: expected at least one photograph, got none"):
        look(TINY_SDXL, YuNet(), "digest", {})
