"""The requests that the client builds, against the parameters that the server declares."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from faceclip import InvalidRequestError, Person, ProtocolError
from faceclip.request import MAX_SEED, Call, GenerateOptions, encode, from_text, prepare_call
from faceclip.wire import IMAGE_ENCODING
from faceclip_serving.contract.parameters import IMAGE, MASK_IMAGE, PARAMETERS, interface
from faceclip_serving.contract.request import parse_request, picture_of, reference_photos
from faceclip_serving.contract.variants.sdxl import TINY_SDXL

DECLARED = {tensor.name: tensor.dtype.value for tensor in PARAMETERS if tensor.name != IMAGE_ENCODING}


CONSENT = {
    "id": "c-1",
    "subject": "S-1",
    "adult": True,
    "scope": ["portrait"],
    "references": ["a" * 64],
    "confirmed_by": "Studio",
    "confirmed_how": "signed form",
    "given": "2026-11-26T12:00:00Z",
    "expires": "2027-11-26T12:00:00Z",
    "text": "1",
}


def _prepare(prompt: Any = "a lighthouse", **options: Any) -> Call:
    return prepare_call("faceclip", DECLARED, prompt, options, 600.0)


def test_every_parameter_arrives_as_the_server_reads_it(photo: bytes) -> None:
    others = {
        "id_guidance_scale": 1.5,
        "text_guidance_scale": 4,
        "blend_weight": np.float32(0.5),
        "guidance_start": 0.25,
        "guidance_end": 1,
        "id_start": 0,
        "id_end": 0.75,
        "priority": "batch",
        "face_weighting": "quality",
        "scheduler_options": {"timestep_spacing": "trailing"},
        "consent": CONSENT,
        "face_box": [0.25, 0.0, 0.75, 0.5],
        "face_index": [0, 2],
        "face_boxes": [[0.25, 0.0, 0.75, 0.5], [0.0, 0.0, 1.0, 1.0]],
    }
    values = {
        "negative_prompt": "blurry",
        "seed": MAX_SEED,
        "num_inference_steps": 3,
        "guidance_scale": 2.5,
        "height": 64,
        "width": np.int64(128),
        "num_images_per_prompt": 2,
        "scheduler": "ddim",
        "step_cache": 0.25,
        "face_aligned": True,
        "output_format": "webp",
    }
    pictures = {"image": photo, "mask_image": photo + b" ", "identity": b"sealed", "people_masks": [photo]}
    people = [{"faces": [0, 1], "box": [0.0, 0.0, 1.0, 0.5]}]
    told = interface(TINY_SDXL)["parameters"]
    for name in set(DECLARED) - {
        *values,
        *others,
        *pictures,
        "prompt",
        "face_images",
        "people",
    }:  # added since: by what is told of it
        others[name] = told[name].get("max", told[name].get("choices", [told[name].get("default")])[-1])
    inputs = _prepare(
        "Ölbild, 油画",
        face_images=[photo, photo],
        prompt_language="off",
        people=json.dumps(people),
        **pictures,
        **values,
        **others,
    ).inputs
    assert set(inputs) == set(DECLARED)
    wanted = parse_request(TINY_SDXL, inputs)
    assert wanted.prompt == "Ölbild, 油画"
    assert (wanted.negative_prompt, wanted.seed, wanted.num_inference_steps) == ("blurry", MAX_SEED, 3)
    assert (wanted.guidance_scale, wanted.height, wanted.width, wanted.num_images_per_prompt) == (2.5, 64, 128, 2)
    assert (wanted.scheduler, wanted.face_aligned, wanted.output_format) == ("DDIMScheduler", True, "WEBP")
    assert {name: getattr(wanted, name) for name in others} == others
    assert reference_photos(TINY_SDXL, inputs) == [photo, photo]
    assert inputs["identity"].tolist() == [b"sealed"] and inputs["people_masks"].tolist() == [photo]
    assert wanted.people is not None and people[0].items() <= wanted.people[0].items()
    assert [picture_of(each, inputs) for each in (IMAGE, MASK_IMAGE)] == [photo, photo + b" "]


@pytest.mark.parametrize("value", [(0.1, 0.2, 0.3), 0.5, "0.1,0.2,0.3,0.4", (0, 0, 1, "1"), None])
def test_a_box_is_four_numbers(value: Any) -> None:
    if value is None:
        assert "face_box" not in _prepare(face_box=None).inputs
        return
    with pytest.raises(TypeError, match=r"face_box: expected (4 numbers|a number), got"):
        _prepare(face_box=value)


def test_a_choice_of_faces_may_come_as_one_number_or_box_or_as_several() -> None:
    for given, sent in ((1, [1]), (np.int64(2), [2]), ([0, 3], [0, 3]), (np.array([4]), [4])):
        assert _prepare(face_index=given).inputs["face_index"].tolist() == sent
    box, boxes = (0.0, 0.25, 0.5, 1.0), [[0.0, 0.25, 0.5, 1.0], (0.5, 0.0, 1.0, 1.0)]
    for given in (box, [box], np.array([box])):
        assert _prepare(face_boxes=given).inputs["face_boxes"].tolist() == list(box)
    assert _prepare(face_boxes=boxes).inputs["face_boxes"].tolist() == [*box, 0.5, 0.0, 1.0, 1.0]
    for name, wrong in (("face_index", "1"), ("face_index", [0.5]), ("face_index", []), ("face_boxes", "0,0,1,1")):
        with pytest.raises(TypeError, match=f"{name}: expected"):
            _prepare(**{name: wrong})


def test_the_call_or_each_of_several_people_chooses_faces(photo: bytes) -> None:
    box = (0.0, 0.25, 0.5, 1.0)
    plain = [Person(photo, (0, 0, 0.5, 1)), Person([photo, photo], (0.5, 0, 1, 1))]
    assert _prepare(people=plain, face_index=[1, 0, 2]).inputs["face_index"].tolist() == [1, 0, 2]
    assert _prepare(people=plain, face_boxes=[box] * 3).inputs["face_boxes"].tolist() == [*box] * 3
    by_number, by_box = (Person(photo, (0, 0, 0.5, 1), **chosen) for chosen in ({"face_index": 1}, {"face_boxes": box}))
    assert _prepare(people=[by_number]).inputs["face_index"].tolist() == [1]
    assert _prepare(people=[by_box]).inputs["face_boxes"].tolist() == list(box)
    for person in (by_number, by_box):
        for name, value in (("face_index", 0), ("face_boxes", box)):
            with pytest.raises(TypeError, match=f"^{name}: give it to the call, .*, or to each Person; got both"):
                _prepare(people=[person], **{name: value})
    for name in ("face_image", "identity"):
        with pytest.raises(TypeError, match=f"^{name}: give it to a Person of people"):
            _prepare(people=plain, **{name: photo})


@pytest.mark.parametrize("mask", [np.eye(4, dtype=bool), np.eye(4, dtype=bool)[:, :, None]])
def test_masks_may_be_of_bool(mask: np.ndarray, photo: bytes) -> None:
    inputs = _prepare(image=photo, mask_image=mask, people_masks=[mask], people="[]").inputs
    for name in ("mask_image", "people_masks"):
        found = np.asarray(Image.open(io.BytesIO(inputs[name][0])).convert("L"))
        np.testing.assert_array_equal(found, mask.reshape(4, 4) * np.uint8(255))


def test_a_picture_to_change_may_come_in_any_form(photo: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo)
    inputs = _prepare(image=tmp_path / "a.png", mask_image=np.full((4, 4), 255, np.uint8)).inputs
    assert inputs["image"].tolist() == [photo] and inputs["mask_image"][0].startswith(b"\x89PNG")
    with pytest.raises(InvalidRequestError, match="image: expected a file, got a URL"):
        _prepare(image="https://example.com/a.png")


def test_every_declared_parameter_is_documented_for_editors() -> None:
    missing = set(DECLARED) - {"prompt"} - set(GenerateOptions.__annotations__)
    assert not missing, "the server takes them already; add them to GenerateOptions"


def test_what_is_left_out_is_left_to_the_server() -> None:
    nothing = dict.fromkeys(GenerateOptions.__annotations__, None)
    del nothing["output_type"], nothing["retries"]
    for options in ({}, nothing):
        assert set(_prepare(**options).inputs) == {"prompt", "seed"}  # a seed is drawn here, so that the call may be repeated


def test_a_parameter_that_only_the_server_knows_is_sent() -> None:
    declared = {**DECLARED, "style_strength": "FP32"}
    call = prepare_call("faceclip", declared, "x", {"style_strength": 2}, None)
    np.testing.assert_array_equal(call.inputs["style_strength"], np.array([2.0], np.float32))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("num_inference_step", "did you mean 'num_inference_steps'"),
        ("init_image", "did you mean 'image'"),
        ("denoising_strength", "did you mean 'strength'"),
        ("cfg_scale", "did you mean 'guidance_scale'"),
        ("outputtype", "did you mean 'output_type'"),
        ("zzz", "known: .*guidance_scale"),
    ],
)
def test_an_unknown_keyword_is_a_type_error_with_a_suggestion(name: str, advice: str) -> None:
    with pytest.raises(TypeError, match=f"'{name}'.*{advice}"):
        _prepare(**{name: 1})


def test_a_parameter_that_this_server_lacks_is_named() -> None:
    with pytest.raises(TypeError, match="preview: model 'faceclip' of this server has no such parameter"):
        _prepare(preview=True)
    assert "preview" not in _prepare(preview=None).inputs


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("height", 2**31, "from -2147483648 to 2147483647"),
        ("num_inference_steps", -(2**31) - 1, "num_inference_steps"),
        ("seed", -1, "seed: expected an integer from 0"),
        ("seed", 2**63, "seed: expected an integer from 0"),
        ("guidance_scale", 1e300, "32 bits"),
        ("negative_prompt", "\ud800", "UTF-8"),
        ("output_type", "latent", "pil, np, bytes"),
        ("timeout_s", 0, "timeout_s"),
        ("timeout_s", float("nan"), "timeout_s"),
        ("retries", -1, "retries"),
    ],
)
def test_values_that_cannot_be_sent_are_refused(name: str, value: Any, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        _prepare(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("height", 64.0),
        ("height", "64"),
        ("height", True),
        ("guidance_scale", "5"),
        ("guidance_scale", True),
        ("guidance_scale", [5.0, 6.0]),
        ("face_aligned", 1),
        ("scheduler", object()),
        ("seed", 1.5),
    ],
)
def test_values_of_another_type_are_type_errors_that_name_the_parameter(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name}: expected"):
        _prepare(**{name: value})


def test_ranges_are_the_servers_matter() -> None:
    inputs = _prepare(height=7, num_inference_steps=0, guidance_scale=float("nan")).inputs
    assert inputs["height"].tolist() == [7]
    assert np.isnan(inputs["guidance_scale"][0])


def test_one_prompt_per_call() -> None:
    with pytest.raises(TypeError, match="prompt: expected a text, got list; make one call for each"):
        _prepare(["a", "b"])
    with pytest.raises(TypeError, match="prompt: expected a text, got NoneType"):
        _prepare(None)


def test_seed_forms() -> None:
    def seed(**options: Any) -> int:
        return int(_prepare(**options).inputs["seed"][0])

    assert seed(seed=np.int64(5)) == 5
    assert seed(generator=5) == 5
    assert seed(generator=torch.Generator().manual_seed(42)) == 42
    assert 0 <= seed(generator=torch.Generator().manual_seed(-1)) <= MAX_SEED
    generator = np.random.default_rng(1)
    drawn = [seed(generator=generator) for _ in range(50)]
    assert drawn[0] == seed(generator=np.random.default_rng(1)) and len(set(drawn)) == 50
    assert all(int(float(each + 3)) == each + 3 for each in drawn)  # JavaScript can repeat them
    assert len({seed() for _ in range(50)}) == 50 and all(0 <= seed() < 2**52 for _ in range(50))
    assert seed(seed=MAX_SEED) == MAX_SEED
    with pytest.raises(TypeError, match="not both"):
        seed(seed=0, generator=torch.Generator())
    with pytest.raises(TypeError, match="several"):
        seed(generator=[torch.Generator()])
    with pytest.raises(TypeError, match="generator: expected an integer"):
        seed(generator=np.random)


def test_values_from_text() -> None:
    texts = {"height": "64", "guidance_scale": "2.5", "face_aligned": "True", "scheduler": "ddim"}
    assert {name: from_text(name, DECLARED, text) for name, text in texts.items()} == {
        "height": 64,
        "guidance_scale": 2.5,
        "face_aligned": True,
        "scheduler": "ddim",
    }
    for name, text, says in (
        ("height", "tall", "an integer"),
        ("face_aligned", "1", "true or false"),
        ("id_end", "x", "a number"),
    ):
        with pytest.raises(InvalidRequestError, match=f"^{name}: expected {says}, got '{text}'"):
            from_text(name, DECLARED, text)
    with pytest.raises(InvalidRequestError, match=r"^hight: expected one of .*height"):
        from_text("hight", DECLARED, "64")


def test_a_datatype_that_the_client_does_not_know_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="FP64"):
        encode("new_parameter", "FP64", 1.0)
