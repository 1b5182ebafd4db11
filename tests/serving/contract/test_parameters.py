import base64
import contextlib
import json
import string

import numpy as np
import pytest

from faceclip_serving.contract.allowed import File, Files
from faceclip_serving.contract.consent import MOST_REFERENCES
from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.parameters import EXPIRES, FILES, MAX_CHARACTERS, MAX_SEED, PARAMETERS, SCALARS
from faceclip_serving.contract.people import MOST_PEOPLE
from faceclip_serving.contract.request import check_names, parse_request, read_parameter, reference_photos, request_tensors
from faceclip_serving.contract.tensors import DType, bytes_tensor
from faceclip_serving.contract.variants.sdxl import SDXL, TINY_SDXL
from faceclip_serving.contract.variants.table import VARIANTS


def raw(**values):
    """Values as the tensors a client would send."""
    return request_tensors(**{"prompt": "a portrait", **values})


def test_plain_values_are_put_into_the_declared_tensors():
    arrays = request_tensors(prompt="words", face_images=[b"one", b"two"], seed=1, scheduler="euler", guidance_scale=2.0)
    assert list(arrays["prompt"]) == [b"words"] and list(arrays["face_images"]) == [b"one", b"two"]
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        "prompt": "object", "face_images": "object", "seed": "int64", "scheduler": "object", "guidance_scale": "float32",
    }  # fmt: skip
    assert "face_images" not in request_tensors(prompt="words", face_images=[])
    with pytest.raises(InvalidRequest, match=r"guidance: expected a parameter of a request, one of .*guidance_scale"):
        request_tensors(guidance=1.0)


def test_defaults_are_the_variants():
    request = parse_request(SDXL, raw())
    assert (request.height, request.width, request.num_inference_steps, request.guidance_scale) == (1152, 864, 50, 5.0)
    assert request.negative_prompt == SDXL.defaults.negative_prompt
    assert request.output_format == "PNG"
    assert request.scheduler == "EulerDiscreteScheduler"


def test_a_missing_seed_is_random_and_images_get_consecutive_ones():
    seeds = {parse_request(TINY_SDXL, raw()).seed for _ in range(4)}
    assert len(seeds) == 4
    assert all(int(float(seed + 3)) == seed + 3 for seed in seeds)  # JavaScript can repeat them
    assert parse_request(TINY_SDXL, raw(seed=7, num_images_per_prompt=3)).seeds == [7, 8, 9]
    assert parse_request(TINY_SDXL, raw(seed=MAX_SEED, num_images_per_prompt=2)).seeds == [MAX_SEED, 0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prompt": ""}, ["prompt", "required"]),
        ({"prompt": " \n"}, ["prompt", "required"]),
        ({"prompt": b"\xff\xfe"}, ["prompt", "UTF-8"]),
        ({"prompt": "x" * 20_000}, ["prompt", "10000", "20000"]),
        ({"negative_prompt": b"\xc3"}, ["negative_prompt", "UTF-8"]),
        ({"num_inference_steps": 0}, ["num_inference_steps", "from 1 to 200", "got 0"]),
        ({"num_inference_steps": -1}, ["num_inference_steps", "-1"]),
        ({"num_inference_steps": 10_000}, ["num_inference_steps", "10000"]),
        ({"guidance_scale": float("nan")}, ["guidance_scale", "nan"]),
        ({"guidance_scale": float("inf")}, ["guidance_scale", "inf"]),
        ({"guidance_scale": -1.0}, ["guidance_scale", "-1"]),
        ({"height": 130}, ["height", "multiple of 8", "130", "try 128"]),
        ({"width": 8}, ["width", "64 to 1344", "try 64"]),
        ({"width": 100_000}, ["width", "try 1344"]),
        ({"num_images_per_prompt": 0}, ["num_images_per_prompt", "from 1 to 4"]),
        ({"num_images_per_prompt": 1000}, ["num_images_per_prompt"]),
        ({"scheduler": "Nonsense"}, ["scheduler", "EulerDiscreteScheduler", "Nonsense"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"scheduler_options": "[1]"}, ["scheduler_options", "list", '{"use_karras_sigmas": true}']),
        ({"scheduler_options": "[" * 5000 + "]" * 5000}, ["scheduler_options", "nested too deeply; write e.g."]),
        (
            {"scheduler_options": '{"solver_order": 2.0}'},
            ["solver_order: expected a whole number from 1 to 3, got 2.0; write 2"],
        ),
        ({"scheduler_options": '{"use_karas_sigmas": true}'}, ["did you mean 'use_karras_sigmas'?"]),
        ({"scheduler_options": "{"}, ["scheduler_options", "JSON"]),
        ({"scheduler_options": '{"__class__": 1}'}, ["scheduler_options", "use_karras_sigmas", "__class__"]),
        ({"scheduler_options": '{"use_karras_sigmas": 1}'}, ["use_karras_sigmas", "true or false"]),
        ({"scheduler_options": '{"timestep_spacing": "wide"}'}, ["timestep_spacing", "trailing", "wide"]),
        ({"scheduler_options": '{"solver_order": true}'}, ["solver_order", "from 1 to 3"]),
        ({"face_weighting": "best"}, ["face_weighting", "quality"]),
        ({"image_encoding": "hex"}, ["image_encoding", "base64"]),
        ({"output_format": "BMP"}, ["output_format", "PNG", "BMP"]),
        ({"id_guidance_scale": 6.0}, ["id_guidance_scale", "5.0", "6.0"]),
        ({"text_guidance_scale": 21.0}, ["text_guidance_scale"]),
        ({"blend_weight": 1.5}, ["blend_weight"]),
        ({"guidance_start": 0.6, "guidance_end": 0.5}, ["guidance_start", "guidance_end"]),
        ({"id_end": -0.5}, ["id_end"]),
    ],
)
def test_bad_values_are_refused_in_words(values, words):
    with pytest.raises(InvalidRequest) as caught:
        parse_request(TINY_SDXL, raw(**values))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_text_is_read_as_json_as_far_as_it_may_be_long_and_no_longer_one_is(variant, monkeypatch):
    read = []
    monkeypatch.setattr(json, "loads", lambda text: read.append(len(text)))
    found = set()
    for parameter in (*SCALARS, EXPIRES):
        longest = parameter.allowed_of(variant).as_json().get("max_characters", MAX_CHARACTERS)
        if parameter.dtype is not DType.BYTES or parameter.axes != (1,):
            continue
        for length in (longest, longest + 1, 5_000_000):
            read.clear()
            with pytest.raises(InvalidRequest) if length > longest else contextlib.suppress(InvalidRequest):
                read_parameter(parameter, variant, {parameter.name: bytes_tensor([b"[" * length])})
            assert max(read, default=0) <= longest, parameter.name
            if read:
                found.add(parameter.name)
    assert found == {"scheduler_options", "people", "consent"}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_the_fullest_record_and_people_are_not_too_long_however_json_writes_them(variant):
    name = "\N{GRINNING FACE}" * 128
    words = dict.fromkeys(("id", "subject", "confirmed_by", "confirmed_how", "text"), name)
    times = dict.fromkeys(("given", "expires"), "2027-01-31T12:00:00.000000+01:00")
    lists = {"scope": [name] * 16, "references": ["0" * 64] * MOST_REFERENCES}
    record = {**words, **times, **lists, "adult": True, "signature": "x" * 128}
    box = [each + 1 / 3 for each in (0, 0, 1 / 3, 1 / 3)]
    prompt = "\N{GRINNING FACE}" * MAX_CHARACTERS
    people = [{"faces": [99], "box": box, "prompt": prompt, "weight": 1 / 3, "consent": record}]
    people *= min(MOST_PEOPLE, variant.limits.faces)
    for indent in (None, 4):
        assert parse_request(variant, raw(consent=json.dumps(record, indent=indent))).consent == record
        told = parse_request(variant, raw(people=json.dumps(people, indent=indent))).people
        assert [each["consent"] for each in told] == [record] * len(people)


def test_whatever_holds_files_is_among_the_files():
    assert {each for each in PARAMETERS if isinstance(each.allowed_of(SDXL), File | Files)} == set(FILES)


def test_wrong_dtype_and_shape_name_the_parameter():
    with pytest.raises(InvalidRequest, match=r"^height: expected INT32 \[1\], got dtype float64"):
        parse_request(TINY_SDXL, raw() | {"height": np.array([128.0])})
    with pytest.raises(InvalidRequest, match=r"^seed: expected INT64 \[1\], got shape \[2\]"):
        parse_request(TINY_SDXL, raw() | {"seed": np.array([1, 2])})
    with pytest.raises(InvalidRequest, match="prompt"):
        parse_request(TINY_SDXL, {})


def test_short_scheduler_names():
    assert parse_request(TINY_SDXL, raw(scheduler="UniPC")).scheduler == "UniPCMultistepScheduler"


def test_split_guidance_scales():
    assert parse_request(TINY_SDXL, raw(guidance_scale=4.0)).guidance_scales == (4.0, 4.0)
    assert parse_request(TINY_SDXL, raw(text_guidance_scale=6.0)).guidance_scales == (6.0, 3.0)
    assert parse_request(TINY_SDXL, raw(guidance_scale=4.0, id_guidance_scale=1.0)).guidance_scales == (4.0, 1.0)


def test_references():
    assert reference_photos(TINY_SDXL, {}) == []
    assert reference_photos(TINY_SDXL, {"face_images": np.array([b"\xffa", b"\xffb"], object)}) == [b"\xffa", b"\xffb"]
    with pytest.raises(InvalidRequest, match="face_images: expected at least one photograph, got an empty list; leave it out"):
        reference_photos(TINY_SDXL, {"face_images": np.array([], object)})
    with pytest.raises(InvalidRequest, match="at most 4"):
        reference_photos(TINY_SDXL, {"face_images": np.array([b"a"] * 5, object)})
    with pytest.raises(InvalidRequest, match="face_images"):
        reference_photos(TINY_SDXL, {"face_images": np.array([[b"a"]], object)})


PHOTO = b"\xff" + bytes(range(256)) * 3
TEXT = base64.b64encode(PHOTO)


@pytest.mark.parametrize(
    "sent",
    [
        PHOTO,
        TEXT,
        b"\n " + TEXT + b"\n",
        base64.encodebytes(PHOTO),
        base64.encodebytes(PHOTO).replace(b"\n", b"\r\n"),
        base64.urlsafe_b64encode(PHOTO),
        base64.urlsafe_b64encode(PHOTO).rstrip(b"="),
        b"data:image/png;base64," + TEXT,
        b"data:image/jpeg;charset=utf-8;base64," + base64.urlsafe_b64encode(PHOTO),
    ],
)
def test_a_photograph_is_a_file_or_any_usual_base64_of_it(sent):
    assert reference_photos(TINY_SDXL, {"face_images": np.array([sent], object)}) == [PHOTO]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (
            TEXT.rstrip(b"=")[:-1]
            if len(TEXT.rstrip(b"=")) % 4 == 2
            else TEXT.rstrip(b"=") + b"A" * (-len(TEXT.rstrip(b"=")) % 4 + 1),
            "neither",
        ),
        (TEXT[:500] + b"!" + TEXT[500:], "neither"),
        (b"https://example.org/me.jpg", "the server does not fetch"),
        (b"data:image/png,abc", ";base64,"),
        (b"data:image/png;base64", ";base64,"),
    ],
)
def test_other_texts_are_refused_with_the_cure(sent, said):
    with pytest.raises(InvalidRequest, match=r"^face_images\[1\]: ") as caught:
        reference_photos(TINY_SDXL, {"face_images": np.array([TEXT, sent], object)})
    assert said in str(caught.value) and "; " in str(caught.value)


@pytest.mark.parametrize(
    "start", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFFabc\0WEBPVP8 ", b"II*\0", b"MM\0*", b"BMab\x01\0", b"GIF89a\0a"]
)
def test_the_beginning_of_a_pictures_file_is_no_base64(start):
    file = start + (string.ascii_letters + string.digits).encode() * 20
    assert reference_photos(TINY_SDXL, {"face_images": np.array([file], object)}) == [file]


KNOWN = [parameter.name for parameter in PARAMETERS]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("face_image", "face_images"),
        ("guidence_scale", "guidance_scale"),
        ("Seed", "seed"),
        ("face-aligned", "face_aligned"),
        ("steps", "num_inference_steps"),
        ("negative", "negative_prompt"),
    ],
)
def test_a_name_that_nobody_reads_is_refused_with_the_nearest(wrong, right):
    with pytest.raises(InvalidRequest, match=f"^{wrong}: this model has no such parameter; did you mean '{right}'"):
        check_names([wrong], KNOWN)


def test_other_names_are_refused_with_a_cure_and_tritons_own_pass():
    with pytest.raises(
        InvalidRequest, match=r"xyzzy: .*; known are face_images, image, mask_image, identity, people_masks, prompt, "
    ):
        check_names(["timeout", "xyzzy"], KNOWN)
    with pytest.raises(InvalidRequest, match=r"seed: .*; send it as an input"):
        check_names(["seed"], KNOWN)
    with pytest.raises(InvalidRequest, match=r"preview: .*; only streams"):
        check_names(["preview"], KNOWN)
    allowed = [
        "timeout",
        "priority",
        "id",
        "sequence_id",
        "triton_enable_empty_final_response",
        "faceclip_from_model",
        "X-Tenant",
    ]
    check_names(allowed, KNOWN)
