"""tiny-flux from request to picture in one process, on the torch components, against diffusers' FluxPipeline."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps
from PIL import Image

from benchmarks.measure.example import PHOTO, PROMPT
from benchmarks.measure.oracle import load_oracle, reference_rows
from benchmarks.measure.pictures import picture_psnr_db
from benchmarks.quality.parity import edits_of, sizes
from benchmarks.quality.together import together_of
from export.checkpoint.tokenizers import write_tokenizers
from faceclip_serving.contract.digest import package_digest
from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.job import Job
from faceclip_serving.contract.names import COMPONENTS, DENOISER
from faceclip_serving.contract.request import parse_request
from faceclip_serving.contract.schedules import make_scheduler
from faceclip_serving.contract.variants.flux import FLUX, TINY_FLUX
from faceclip_serving.models.prompts import encode_prompt, load_tokenizer, prompt_warnings
from faceclip_serving.sampling.pictures import sample, start_pictures
from tests.benchmarks.in_torch import pipeline_of
from tests.serving.contract.test_parameters import raw

DIGEST = package_digest(Path(__file__).resolve().parents[3] / "faceclip_serving")
STEPS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("prepare")
    write_tokenizers(TINY_FLUX, None, made)
    return made


@pytest.fixture(scope="module")
def pipeline(folder):
    made = pipeline_of(TINY_FLUX, folder)
    assert set(COMPONENTS) < set(made.stages)
    return made


@pytest.mark.proof
def test_pictures_are_those_of_diffusers_pipeline(pipeline, folder):
    oracle = load_oracle(TINY_FLUX)
    guidance_scale = TINY_FLUX.defaults.guidance_scale
    for photo in (PHOTO.read_bytes(), None):
        encoded = oracle.encode(*reference_rows(TINY_FLUX, folder, photo, PROMPT))
        for height, width in sizes(TINY_FLUX):
            options = {"seed": 1, "height": height, "width": width}
            arrays = raw(prompt=PROMPT, num_inference_steps=STEPS, **options)
            if photo is not None:
                arrays["face_images"] = np.array([photo], dtype=object)
            picture = np.asarray(Image.open(io.BytesIO(pipeline(arrays)["images"][0])))
            expected = oracle.picture(
                *encoded, steps=STEPS, guidance_scale=guidance_scale, scheduler="FlowMatchEulerDiscreteScheduler", **options
            )
            assert picture.shape == expected.shape == (height, width, 3)
            assert picture_psnr_db(picture, expected) >= 45


@pytest.mark.proof
def test_pictures_that_are_changed_are_those_of_diffusers_pipelines(pipeline, folder):
    def draw(prompt, face_image, **options):
        arrays = raw(prompt=prompt, face_images=[face_image], **options)
        return np.asarray(Image.open(io.BytesIO(pipeline(arrays)["images"][0])))

    found = edits_of(load_oracle(TINY_FLUX), folder, draw, STEPS, strengths=(0.6, 1.0))
    assert len(found["cases"]) == 8 and found["psnr_db_min"] >= 45


@pytest.mark.proof
def test_pictures_of_several_people_are_those_of_the_formula(pipeline, folder):
    def draw(prompt, people, **options):
        arrays = raw(prompt=prompt, people=json.dumps(people), **options)
        return np.asarray(Image.open(io.BytesIO(pipeline(arrays)["images"][0])))

    schedulers = ["FlowMatchEulerDiscreteScheduler"]
    found = together_of(load_oracle(TINY_FLUX), folder, draw, sizes(TINY_FLUX), schedulers, STEPS)
    assert len(found["cases"]) == 4 and found["psnr_db_min"] >= 45


def job(key, rows=2, **values):
    request = parse_request(TINY_FLUX, raw(**{"num_inference_steps": 3, "height": 64, "width": 80, "seed": key, **values}))
    conditioning = {
        t.name: np.random.default_rng(key).standard_normal(t.shape({"rows": rows})).astype(np.float32)
        for t in TINY_FLUX.conditioning
    }
    return Job(request, {"unconditional": [0], "identity": [1]}, [1.0], "", None, "digest"), conditioning


def test_requests_of_different_steps_and_guidance_share_their_steps(pipeline):
    calls = []

    def denoise(batch):
        calls.append(len(batch["timestep"]))
        return pipeline.stages[DENOISER](dict(batch))["noise_pred"]

    jobs = [job(1), job(2, num_inference_steps=5, guidance_scale=1.0)]
    alone = [sample(start_pictures(TINY_FLUX, *one), denoise, 8) for one in jobs]
    calls.clear()
    pictures = [picture for one in jobs for picture in start_pictures(TINY_FLUX, *one)]
    together = sample(pictures, denoise, 8)
    assert calls == [3, 3, 3, 1, 1]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=2e-5)


@pytest.mark.parametrize(("height", "width", "steps"), [(1152, 864, 50), (256, 256, 4), (2048, 2048, 7)])
def test_timesteps_are_those_of_diffusers_pipeline(height, width, steps):
    config = FLUX.scheduler_config
    ours = make_scheduler(FLUX.defaults.scheduler, config)
    ours.set_timesteps(**FLUX.timesteps_for(config, steps, height, width))
    theirs = FlowMatchEulerDiscreteScheduler(**config)
    mu = calculate_shift((height // 16) * (width // 16), 256, 4096, 0.5, 1.15)
    expected, _ = retrieve_timesteps(theirs, steps, "cpu", sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    assert torch.equal(ours.timesteps, expected) and torch.equal(ours.sigmas, theirs.sigmas)


def test_defaults_limits_and_names():
    request = parse_request(FLUX, raw())
    assert (request.height, request.width, request.num_inference_steps, request.guidance_scale) == (1152, 864, 50, 3.5)
    assert request.scheduler == "FlowMatchEulerDiscreteScheduler"
    assert FLUX.extras_for(64, 64)["guidance"].tolist() == [[1.0]]
    with pytest.raises(InvalidRequest, match="multiple of 16"):
        parse_request(FLUX, raw(height=1144))
    with pytest.raises(InvalidRequest, match="FlowMatchEulerDiscreteScheduler"):
        parse_request(FLUX, raw(scheduler="ddim"))


def test_texts_become_ids_of_both_tokenizers(folder):
    pooled, text = TINY_FLUX.tokens
    encoded = encode_prompt(load_tokenizer(folder / text.tokenizer), text, "studio light", prefixed=True)
    words, end = encoded.ids[: encoded.used].tolist(), encoded.ids[encoded.used :].tolist()
    assert text.words is not None and all(text.words[0] <= word <= text.words[1] for word in words)
    assert end == [text.end] + [text.padding] * (text.max_tokens - encoded.used - 1)
    of_clip = encode_prompt(load_tokenizer(folder / pooled.tokenizer), pooled, "studio light", prefixed=True)
    assert of_clip.ids[0] == pooled.begin and of_clip.ids[of_clip.used + 1] == pooled.end
    long = encode_prompt(load_tokenizer(folder / text.tokenizer), text, "light " * 200 + "zebra", prefixed=False)
    assert long.ids[-1] == text.end and long.used == text.max_tokens - 1 and "zebra" in long.dropped
    for tokens in TINY_FLUX.tokens:
        encoded = encode_prompt(load_tokenizer(folder / tokens.tokenizer), tokens, "light " * 200 + "zebra", prefixed=False)
        [warning] = prompt_warnings("prompt", encoded, tokens, "light")
        assert f"fit into {tokens.max_tokens} of {tokens.reader};" in warning
    assert [tokens.reader for tokens in TINY_FLUX.tokens] == ["CLIP", "T5"]
