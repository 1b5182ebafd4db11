"""What `prepare` notes for the audit log and asks of consent; the rest is shown by the served pictures."""

import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image

from export.paths import ROOT
from faceclip_serving.audit.consent import NOT_ASKED, Rule
from faceclip_serving.checks.checks import Checks
from faceclip_serving.checks.policy import PHOTOGRAPHS, PROMPT, read
from faceclip_serving.contract.errors import InvalidRequest, Refused
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.marking.verify import MAX_BLOCKS
from faceclip_serving.models.prepare import prepare
from faceclip_serving.models.prompts import load_tokenizer
from tests.serving.audit.conftest import KEY, PHOTO, REFERENCES, record

SQUARE = np.random.default_rng(3).integers(0, 256, (64, 64, 3), np.uint8)
__all__ = ["record"]


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def prepared(repository):
    folder = repository / "prepare" / "1"
    tokenizers = [load_tokenizer(folder / tokens.tokenizer) for tokens in TINY_SDXL.tokens]

    def made(rule=NOT_ASKED, photos=(SQUARE,), checks=None, **values):
        told = {"prompt": "x", "face_images": [png(photo) for photo in photos], "face_aligned": True, **values}
        return json.loads(
            prepare(TINY_SDXL, tokenizers, YuNet(), "digest", request_tensors(**told), checks=checks, rule=rule)["job"][0]
        )

    return made


def test_photographs_are_named_for_the_log_and_a_record_that_nobody_looks_at_is_told(prepared, record):
    job = prepared(Rule(references=REFERENCES), consent=json.dumps(record()))
    assert job["audit"] == {"references": [REFERENCES.of_photo(SQUARE)[0]]} and job["consent"] == {"mode": "off", "id": None}
    assert any(warning.startswith("consent: this server does not look at records") for warning in job["warnings"])
    assert prepared()["audit"] == {"references": []}, "without a key nothing is named"


def test_consent_is_asked_of_each_photograph_and_the_log_hears_which_failed(prepared, record):
    rule = Rule("require", (KEY.public_key(),), references=REFERENCES)
    mine = json.dumps(record(expires="2099-01-01T00:00:00Z", references=[REFERENCES.of_photo(SQUARE)[0]]))
    assert prepared(rule, consent=mine)["consent"]["id"] == "c-1"
    with pytest.raises(Refused) as error:
        prepared(rule, (SQUARE, PHOTO), consent=mine)
    assert error.value.code == "consent.not_covered" and "face_images[1]" in str(error.value)
    assert error.value.audit["references"] == [REFERENCES.of_photo(PHOTO)[0]]
    assert error.value.audit["consent"]["id"] == "c-1"


def test_a_record_without_a_photograph_has_no_effect(prepared, record):
    job = prepared(Rule("require", (KEY.public_key(),)), (), consent=json.dumps(record(adult=False)), face_aligned=False)
    assert job["consent"] == {"mode": "require", "id": None}
    assert any(warning.startswith("consent: it has no effect here") for warning in job["warnings"])


@pytest.mark.parametrize("aligned", [True, False])
def test_the_check_of_photographs_hears_who_aligned_them(prepared, aligned):
    class Asked(Checks):
        def photographs(self, thumbnails, crops, trusted=True):
            asked.append((len(thumbnails), len(crops), trusted))
            return []

    asked = []
    photo = np.asarray(Image.open(ROOT / "examples" / "portrait.png").convert("RGB").resize((448, 448)))
    prepared(photos=(photo,), checks=Asked(read(), [PROMPT]), face_aligned=aligned)
    assert asked == [(1, 1, not aligned)]


def test_a_picture_to_change_is_a_photograph_of_whoever_is_in_it(prepared, record):
    """Whatever it shows; the one record of the request names both."""
    rule = Rule("require", (KEY.public_key(),), references=REFERENCES)
    names = [REFERENCES.of_photo(each)[0] for each in (SQUARE, PHOTO)]
    both, one = (json.dumps(record(expires="2099-01-01T00:00:00Z", references=each)) for each in (names, names[:1]))
    assert prepared(rule, image=png(PHOTO), consent=both)["audit"]["references"] == names
    for photos, consent, code in (((), None, "missing"), ((SQUARE,), one, "not_covered")):
        with pytest.raises(Refused) as error:
            prepared(rule, photos, image=png(PHOTO), face_aligned=bool(photos), **({"consent": consent} if consent else {}))
        assert error.value.code == f"consent.{code}" and f"consent.{code}: image: " in str(error.value)
    assert prepared(rule, (), image=png(PHOTO), consent=both, face_aligned=False)["consent"]["id"] == "c-1"
    told = prepared(Rule(references=REFERENCES), (), image=png(PHOTO), consent=both, face_aligned=False)
    assert [each.partition(":")[0] for each in told["warnings"]] == ["consent"], "this server does not look at records"


def test_a_picture_to_change_is_checked_like_a_photograph_with_all_its_faces(prepared):
    class Asked(Checks):
        knows_faces = True

        def prompt(self, prompt, negative_prompt, faces, further):
            asked.append(faces)
            return []

        def image(self, thumbnail, crops):
            asked.append((thumbnail.shape, [crop.shape for crop in crops]))
            return []

    asked = []
    photo = np.asarray(Image.open(ROOT / "examples" / "astronaut.jpg").convert("RGB"))
    prepared(photos=(), image=png(photo), face_aligned=False, checks=Asked(read(), [PROMPT]))
    assert asked == [1, ((256, 256, 3), [(3, 448, 448)])], "its prompt is that of a request with a face"


def test_an_explicit_picture_to_change_is_refused_by_its_name(monkeypatch, prepared):
    monkeypatch.setattr("faceclip_serving.checks.checks.explicit", lambda: lambda pictures: [0.99] * len(pictures))
    with pytest.raises(Refused, match=r"^policy\.nudity: image looks explicit; send another photograph"):
        prepared(photos=(), image=png(PHOTO), face_aligned=False, checks=Checks(read(), [PHOTOGRAPHS]))


def test_a_photograph_of_countless_chunks_is_refused_before_anything_reads_it(prepared):
    file = png(SQUARE)
    empty = bytes(4) + b"aaAa" + zlib.crc32(b"aaAa").to_bytes(4, "big")
    hostile = file[:33] + empty * MAX_BLOCKS + file[33:]
    with pytest.raises(InvalidRequest, match=r"face_images\[1\]: expected a photograph whose file has at most 10000 chunks"):
        prepared(photos=(), face_images=[file, hostile])
    for name in ("image", "mask_image"):
        with pytest.raises(InvalidRequest, match=f"^{name}: expected a photograph whose file has at most 10000 chunks"):
            prepared(photos=(), face_aligned=False, **{"image": file, name: hostile})


def roles(job):
    """Role -> for each of its texts the rows of the text encoder, and those without the words of each weight."""
    encodings = [(each["rows"], each["without"]) for each in job["encodings"]]
    return {role: [encodings[i] for i in places] for role, places in job["rows"].items()}


def test_weights_travel_with_the_job_beside_rows_without_their_words_for_each_face(prepared):
    assert prepared(prompt="a hat", negative_prompt="fog")["encodings"] == []
    assert prepared(prompt="a (hat:1.0)", negative_prompt="fog")["encodings"] == [], "a weight of 1 is none"
    job = prepared(photos=(SQUARE, SQUARE), prompt="a (hat:1.3)", negative_prompt="fog", blend_weight=0.5)
    assert roles(job) == {
        "unconditional": [([0], [])],
        "identity": [([1], [[4]]), ([2], [[5]])],
        "prefixed_text": [([3], [[6]])],
    }
    assert [[round(weight, 4) for weight in each["weights"]] for each in job["encodings"]] == [[], [1.3], [1.3], [1.3]]
    job = prepared(photos=(), prompt="[a] (hat:1.3) BREAK (coat:1.3)", negative_prompt="fog", face_aligned=False)
    assert roles(job) == {"unconditional": [([0], [])], "text": [([1, 2], [[3, 2], [4, 5]])]}


def test_words_are_blank_in_the_rows_without_them_and_everything_else_stays(repository):
    folder = repository / "prepare" / "1"
    tokenizers = [load_tokenizer(folder / tokens.tokenizer) for tokens in TINY_SDXL.tokens]
    asked = request_tensors(prompt="a (red:1.3) coat (blue:1.3)", negative_prompt="")
    made = prepare(TINY_SDXL, tokenizers, YuNet(), "digest", asked)
    (tokens,) = TINY_SDXL.tokens
    _, whole, without = made[tokens.input]
    blank = [tokenizers[0].id_to_token(int(id)) for id in whole[whole != without]]
    assert blank[0] == "red</w>" and blank[-1].endswith("</w>") and set(without[whole != without]) == {tokens.padding}
    assert made["face_index"].ravel().tolist() == [-1, -1, -1]


def test_a_prompt_of_brackets_alone_is_none(prepared):
    with pytest.raises(InvalidRequest, match="prompt: a text is required, got no words"):
        prepared(prompt="(:1.2) <lora:x:1>")
    assert prepared(prompt="(:1.2)", prompt_weighting=False)["encodings"] == []


@pytest.mark.parametrize(
    "prompt",
    [
        "a (nu:1.1)de woman",
        "a n[u]de woman",
        "a nu<lora:x:0.8>de woman",
        "a ((n:1.2)u:0.9)(d)e woman",
        r"a \(nude\) woman",
        "nude BREAK woman",
    ],
)
def test_brackets_hide_no_word_from_the_checks(prepared, prompt):
    checks = Checks(read(), [PROMPT])
    with pytest.raises(Refused, match=r"policy\.nudity"):
        prepared(prompt=prompt, checks=checks)
    prepared(prompt=prompt.replace("u", "o"), checks=checks)


def test_the_checks_judge_the_original_of_a_translation_too(prepared):
    checks = Checks(read(), [PROMPT])
    with pytest.raises(Refused, match=r"policy\.nudity"):
        prepared(prompt="a woman", original_prompt="裸体女人", checks=checks)
    prepared(prompt="a woman", original_prompt="女人", checks=checks)


def test_the_checks_judge_the_text_that_is_read(prepared):
    class Asked(Checks):
        def prompt(self, prompt, negative_prompt, faces, further):
            asked.append((prompt, negative_prompt))
            return []

    asked = []
    for weighting in (True, False):
        prepared(prompt="a (red:1.3) hat", negative_prompt="[fog]", checks=Asked(read(), []), prompt_weighting=weighting)
    assert asked == [("a red hat", "fog"), ("a (red:1.3) hat", "[fog]")]


def test_long_prompts_are_rows_of_the_text_encoder_side_by_side_unless_switched_off(prepared):
    job = prepared(photos=(SQUARE, SQUARE), prompt="a BREAK b BREAK c", negative_prompt="fog BREAK (night)")
    assert roles(job) == {"unconditional": [([0, 1], [[0, 8]])], "identity": [([2, 3, 4], []), ([5, 6, 7], [])]}
    assert job["prompt_chunks"] == {"prompt": 3, "negative_prompt": 2}
    job = prepared(prompt="castle " * 100 + "zebra", long_prompts=False)
    assert job["encodings"] == [] and job["prompt_chunks"]["prompt"] == 1
    assert any("zebra" in warning for warning in job["warnings"])
    assert not any("zebra" in warning for warning in prepared(prompt="castle " * 100 + "zebra")["warnings"])
