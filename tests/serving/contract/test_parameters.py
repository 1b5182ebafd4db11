import numpy as np
import pytest

from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.parameters import MAX_SEED
from faceclip_serving.contract.request import parse_request, reference_photos, request_tensors
from faceclip_serving.contract.sdxl import SDXL, TINY_SDXL


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
        ({"width": 8}, ["width", "64 to 512", "try 64"]),
        ({"width": 100_000}, ["width", "try 512"]),
        ({"num_images_per_prompt": 0}, ["num_images_per_prompt", "from 1 to 4"]),
        ({"num_images_per_prompt": 1000}, ["num_images_per_prompt"]),
        ({"scheduler": "Nonsense"}, ["scheduler", "EulerDiscreteScheduler", "Nonsense"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"scheduler_options": "[1]"}, ["scheduler_options", "list"]),
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
    assert reference_photos(TINY_SDXL, {"face_images": np.array([b"a", b"b"], object)}) == [b"a", b"b"]
    with pytest.raises(InvalidRequest, match="at most 4"):
        reference_photos(TINY_SDXL, {"face_images": np.array([b"a"] * 5, object)})
    with pytest.raises(InvalidRequest, match="face_images"):
        reference_photos(TINY_SDXL, {"face_images": np.array([[b"a"]], object)})
