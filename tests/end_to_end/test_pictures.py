"""Served pictures: the reference's, reproducible, and as asked for."""

import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from benchmarks.measure.example import PHOTO
from benchmarks.measure.oracle import load_oracle
from benchmarks.measure.pictures import picture_psnr_db
from benchmarks.quality.parity import parity_of
from faceclip import InvalidRequestError
from faceclip_serving.contract.variants.sdxl import TINY_SDXL


def pixels(result, i=0):
    return np.asarray(result.images[i])


@pytest.mark.proof
def test_served_pictures_are_those_of_diffusers_own_pipeline(server, pipe):
    found = parity_of(load_oracle(TINY_SDXL), server.repository, pipe)
    assert len(found["cases"]) == 12
    assert found["psnr_db_min"] >= 45
    assert found["encoder_max_abs_error"] <= 1e-4


def test_the_face_and_the_prompt_change_the_picture_and_the_seed_repeats_it(pipe):
    base = {"seed": 3, "num_inference_steps": 4}
    face = pipe("a portrait", face_image=PHOTO, **base)
    assert np.array_equal(pixels(face), pixels(pipe("a portrait", face_image=PHOTO, **base)))
    for other in (
        pipe("a portrait", **base),
        pipe("a castle", face_image=PHOTO, **base),
        pipe("a portrait", face_image=PHOTO, **{**base, "seed": 4}),
    ):
        assert picture_psnr_db(pixels(face), pixels(other)) < 45


def test_several_images_are_the_pictures_of_consecutive_seeds(pipe):
    four = pipe("a portrait", seed=10, num_inference_steps=3, num_images_per_prompt=4)
    assert four.seeds == [10, 11, 12, 13]
    alone = pipe("a portrait", seed=12, num_inference_steps=3)
    assert picture_psnr_db(pixels(four, 2), pixels(alone)) >= 50


@pytest.mark.parametrize("output_format", ["PNG", "JPEG", "WEBP"])
def test_formats_sizes_and_provenance(pipe, output_format):
    result = pipe(
        "a portrait", height=72, width=104, num_inference_steps=2, output_format=output_format, output_type="bytes", seed=5
    )
    image = Image.open(io.BytesIO(result.images[0]))
    assert image.format == output_format
    assert image.size == (104, 72)


def test_details_say_what_was_done(pipe):
    result = pipe("a portrait", face_image=PHOTO, num_inference_steps=3, seed=6, scheduler="dpmpp_2m")
    details = result.details
    assert details["parameters"]["scheduler"] == "DPMSolverMultistepScheduler"
    assert details["seeds"] == [6]
    assert set(details["timings_s"]) == {"prepare", "encode", "queue", "denoise", "decode", "check", "mark", "finish", "total"}
    assert all(seconds >= 0 for seconds in details["timings_s"].values())
    assert details["sampling"]["ticks"] == 3
    [face] = details["faces"]
    x, y, width, height = face["box"]
    assert 150 < x < 220 and 40 < y < 120 and 60 < width < 160 and 60 < height < 160
    assert len(face["landmarks"]) == 5


def test_a_prompt_that_does_not_fit_is_reported_with_what_was_left_out(pipe):
    for castles, options in ((100, {"long_prompts": False}), (200, {})):
        result = pipe("a castle " * castles + "zebra", num_inference_steps=1, seed=1, **options)
        assert any("zebra" in warning for warning in result.warnings)
    result = pipe("a castle " * 100 + "zebra", num_inference_steps=1, seed=1)
    assert result.warnings == [] and result.details["prompt_chunks"]["prompt"] == 3
    assert any("English" in warning for warning in pipe("портрет женщины", num_inference_steps=1).warnings)


def test_an_aligned_crop_is_used_as_it_is(pipe):
    crop = Image.open(PHOTO).convert("RGB").crop((164, 60, 284, 180)).resize((448, 448))
    result = pipe("a portrait", face_image=crop, face_aligned=True, num_inference_steps=2, seed=1)
    assert result.details["faces"][0]["aligned"]


@pytest.mark.proof
def test_guidance_modes_meet_where_they_must(pipe):
    base = {"face_image": PHOTO, "seed": 8, "num_inference_steps": 4}
    standard = pixels(pipe("a portrait", guidance_scale=4.0, **base))
    assert np.array_equal(standard, pixels(pipe("a portrait", id_guidance_scale=4.0, text_guidance_scale=4.0, **base)))
    free = pixels(pipe("a portrait", guidance_scale=4.0, seed=8, num_inference_steps=4))
    assert picture_psnr_db(free, pixels(pipe("a portrait", id_guidance_scale=0.0, text_guidance_scale=4.0, **base))) >= 50
    split = pipe("a portrait", id_guidance_scale=2.0, text_guidance_scale=4.0, **base)
    assert split.details["sampling"]["rows"] == 12
    assert pipe("a portrait", guidance_scale=1.0, **base).details["sampling"]["rows"] == 4
    assert pipe("a portrait", guidance_scale=4.0, guidance_end=0.5, **base).details["sampling"]["rows"] == 6


def test_two_references_are_averaged(pipe):
    twice = pipe("a portrait", face_images=[PHOTO, PHOTO], seed=8, num_inference_steps=3)
    once = pipe("a portrait", face_image=PHOTO, seed=8, num_inference_steps=3)
    assert picture_psnr_db(pixels(twice), pixels(once)) >= 50
    assert len(twice.details["faces"]) == 2


def test_details_are_plain_json(pipe):
    json.dumps(pipe("a portrait", num_inference_steps=1).details)


@pytest.mark.proof
def test_prompts_with_weights_and_chunks_are_drawn_beside_others_that_stay_as_they_are(pipe, server):
    """Neighbours in the same ticks: a short prompt's file is what it is alone."""
    asked = [
        ("a portrait", {}),
        ("a (red:1.4) hat BREAK a castle BREAK [rain]", {"face_image": PHOTO}),
        ("a (red:1.4) hat", {}),
        ("a portrait", {"face_image": PHOTO}),
        ("a hat BREAK rain", {"negative_prompt": "fog BREAK night BREAK blur"}),
    ]
    base = {"seed": 4, "num_inference_steps": 4}
    alone = [pixels(pipe(prompt, **base, **options)) for prompt, options in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = [pool.submit(pipe, prompt, **base, **options) for prompt, options in asked]
    for expected, found in zip(alone, together, strict=True):
        assert picture_psnr_db(pixels(found.result()), expected) >= 50
    assert picture_psnr_db(alone[0], alone[2]) < 50


@pytest.mark.parametrize("prompt", ["a (hat", "a hat)", "(hat:-1)", "(hat:1e9)", "(hat:nan)", "((hat:4):4)", "[a|b]", "()"])
def test_notation_that_means_nothing_is_refused_and_costs_nobody_else(pipe, prompt):
    for name in ("prompt", "negative_prompt")[: 1 if prompt == "()" else 2]:
        with pytest.raises(InvalidRequestError, match=rf"^{name}: "):
            pipe(**{"prompt": "a portrait", name: prompt}, num_inference_steps=1)
    pipe("a portrait", num_inference_steps=1)
