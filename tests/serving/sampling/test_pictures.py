"""The sampling loop with a plain callable as denoiser: no server, no network."""

import json

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler

from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.job import Job
from faceclip_serving.contract.request import parse_request
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.sampling.pictures import _REMEMBERED_BATCHES, Batch, sample, select, start_pictures
from tests.serving.contract.test_parameters import raw

EMBEDDINGS, POOLED = TINY_SDXL.conditioning


def job(rows=None, weights=(1.0,), **values):
    request = parse_request(TINY_SDXL, raw(**{"num_inference_steps": 4, "height": 64, "width": 64, **values}))
    return Job(request, rows or {"unconditional": [0], "identity": [1]}, list(weights), "", None, "digest")


def conditioning(seed, rows=2):
    rng = np.random.default_rng(seed)
    return {t.name: rng.standard_normal(t.shape({"rows": rows})).astype(np.float32) for t in TINY_SDXL.conditioning}


def denoise(inputs):
    """Depends on every input, and each row only on itself."""
    row = inputs["embeddings"].mean(axis=(1, 2)) + inputs["pooled"].mean(axis=1) + inputs["time_ids"].mean(axis=1) / 1e3
    scale = (row + np.cos(inputs["timestep"][:, 0]))[:, None, None, None]
    return (0.5 * inputs["latents"] + 0.1 * np.tanh(scale)).astype(np.float32)


@pytest.mark.parametrize("name", TINY_SDXL.schedulers)
def test_a_picture_does_not_depend_on_what_it_is_batched_with(name):
    def alone(seed, **values):
        return sample(start_pictures(TINY_SDXL, job(seed=seed, scheduler=name, **values), conditioning(seed)), denoise, 8)

    together = [
        start_pictures(TINY_SDXL, job(seed=1, scheduler=name), conditioning(1)),
        start_pictures(TINY_SDXL, job(seed=2, scheduler=name, num_inference_steps=7, guidance_scale=1.0), conditioning(2)),
        start_pictures(TINY_SDXL, job(seed=3, scheduler=name, num_images_per_prompt=2), conditioning(3)),
    ]
    latents = sample([picture for pictures in together for picture in pictures], denoise, max_rows=5)
    np.testing.assert_array_equal(latents[:1], alone(1))
    np.testing.assert_array_equal(latents[1:2], alone(2, num_inference_steps=7, guidance_scale=1.0))
    np.testing.assert_array_equal(latents[2:], alone(3, num_images_per_prompt=2))


def test_equal_split_scales_are_the_standard_result_and_zero_is_face_free():
    rows = {"unconditional": [0], "text": [1], "identity": [2]}
    values = conditioning(5, rows=3)

    def latents(**scales):
        return sample(start_pictures(TINY_SDXL, job(rows, seed=9, **scales), values), denoise, 8)

    standard = latents(guidance_scale=4.0)
    np.testing.assert_array_equal(latents(text_guidance_scale=4.0, id_guidance_scale=4.0), standard)
    free = sample(
        start_pictures(TINY_SDXL, job({"unconditional": [0], "text": [1]}, (), seed=9, guidance_scale=4.0), values), denoise, 8
    )
    np.testing.assert_array_equal(latents(text_guidance_scale=4.0, id_guidance_scale=0.0), free)
    assert np.abs(latents(text_guidance_scale=4.0, id_guidance_scale=2.0) - standard).max() > 1e-3


def test_several_references_and_blend():
    values = conditioning(6, rows=4)
    rows = {"unconditional": [0], "identity": [1, 2], "prefixed_text": [3]}
    [picture] = start_pictures(TINY_SDXL, job(rows, (0.25, 0.75), blend_weight=0.5), values)
    faces = 0.25 * values["embeddings"][1:2] + 0.75 * values["embeddings"][2:3]
    np.testing.assert_allclose(
        picture.constants["identity"]["embeddings"], 0.5 * faces + 0.5 * values["embeddings"][3:4], rtol=1e-5, atol=1e-6
    )


def test_sizes_alternate_and_rows_stay_within_the_bound():
    small = [start_pictures(TINY_SDXL, job(seed=i), conditioning(i))[0] for i in range(3)]
    [large] = start_pictures(TINY_SDXL, job(seed=9, height=128), conditioning(9))
    first = select([*small, large], max_rows=4)
    assert first == small[:2]
    for tick, picture in enumerate(first):
        picture.last_tick = tick
    assert select([*small, large], max_rows=4) == [small[2], small[0]]
    small[2].last_tick = 2
    assert select([*small, large], max_rows=4) == [large]


def test_scheduler_options_change_the_schedule_and_unknown_ones_are_refused():
    def steps(**options):
        return start_pictures(TINY_SDXL, job(scheduler_options=json.dumps(options)), conditioning(1))[0].schedule.steps

    assert not np.allclose(steps(), steps(use_karras_sigmas=True))
    assert not np.allclose(steps(), steps(timestep_spacing="trailing"))
    with pytest.raises(InvalidRequest, match="EulerDiscreteScheduler has no solver_order"):
        steps(solver_order=3)
    with pytest.raises(InvalidRequest, match="refuses"):
        steps(use_karras_sigmas=True, use_exponential_sigmas=True)


def test_a_scheduler_that_refuses_the_steps_is_the_callers_error():
    with pytest.raises(InvalidRequest, match="LCMScheduler"):
        start_pictures(TINY_SDXL, job(scheduler="lcm", num_inference_steps=180), conditioning(1))


def test_a_picture_begins_with_the_noise_of_its_seed_and_draws_on_from_there():
    """As diffusers does with a generator of that seed, for a scheduler that adds fresh noise in every step."""
    [picture] = start_pictures(TINY_SDXL, job(seed=7, scheduler="EulerAncestralDiscreteScheduler"), conditioning(1))
    scheduler = EulerAncestralDiscreteScheduler.from_config(TINY_SDXL.scheduler_config)
    scheduler.set_timesteps(len(picture.chains))
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(picture.shape, generator=generator) * scheduler.init_noise_sigma
    np.testing.assert_allclose(picture.latents, latents, rtol=1e-6)
    for timestep in scheduler.timesteps:
        scheduler.scale_model_input(latents, timestep)
        predicted = np.random.default_rng(int(timestep)).standard_normal(picture.shape).astype(np.float32)
        picture.advance(np.concatenate([predicted] * len(picture.chain.branches)))
        latents = scheduler.step(torch.from_numpy(predicted), timestep, latents, generator=generator).prev_sample
        np.testing.assert_allclose(picture.latents, latents, rtol=1e-3, atol=1e-4)


def test_arrays_are_filled_again_for_calls_that_repeat_and_those_not_used_longest_are_forgotten_first():
    pictures = [start_pictures(TINY_SDXL, job(seed=i), conditioning(i))[0] for i in range(_REMEMBERED_BATCHES + 1)]
    batch = Batch()
    arrays = [batch.inputs([picture]) for picture in pictures[:-1]]
    assert batch.inputs(pictures[:1]) is arrays[0]
    batch.inputs(pictures[-1:])
    assert batch.inputs(pictures[:1]) is arrays[0] and batch.inputs(pictures[1:2]) is not arrays[1]


def test_a_step_without_a_call_takes_the_last_prediction():
    def picture(threshold):
        return start_pictures(TINY_SDXL, job(seed=5, num_inference_steps=8, step_cache=threshold), conditioning(1))[0]

    one, other = picture(1e-12), picture(0.0)
    one.cache.threshold = np.inf
    first, second, last = (np.random.default_rng(i).standard_normal((2, *one.shape[1:])).astype(np.float32) for i in range(3))
    for predictions in (first, second, last):
        one.advance(predictions)
    for predictions in (first, *[second] * 6, last):
        other.advance(predictions)
    assert one.done and other.done and one.cache.skipped == 5
    np.testing.assert_array_equal(one.latents, other.latents)


def cached(threshold, steps=12, **values):
    calls = []

    def counted(inputs):
        calls.append(float(inputs["timestep"][0, 0]))
        return denoise(inputs)

    pictures = start_pictures(
        TINY_SDXL, job(num_inference_steps=steps, seed=5, step_cache=threshold, **values), conditioning(1)
    )
    return sample(pictures, counted, 8), calls, pictures[0].cache.skipped


def test_a_step_cache_saves_calls_in_the_middle_only_and_off_is_off():
    exact, calls, skipped = cached(0.0)
    assert (len(calls), skipped) == (12, 0)
    latents, fewer, skipped = cached(0.6)
    assert skipped > 0 and len(fewer) == 12 - skipped
    assert fewer[:2] == calls[:2] and fewer[-1] == calls[-1] and set(fewer) < set(calls)
    assert 0 < np.abs(latents - exact).max() < np.abs(exact).max()
    _, fewest, _ = cached(1.0)
    assert len(fewest) <= len(fewer)
    np.testing.assert_array_equal(cached(1e-6)[0], exact)


def test_a_prediction_is_not_used_for_steps_of_other_guidance():
    _, calls, _ = cached(0.0)
    _, fewer, _ = cached(1.0, guidance_end=0.5)
    assert calls[6] in fewer  # the first step without guidance


def test_cached_pictures_keep_to_themselves_in_a_batch():
    alone = [cached(0.6)[0], sample(start_pictures(TINY_SDXL, job(seed=9), conditioning(2)), denoise, 8)]
    both = [
        *start_pictures(TINY_SDXL, job(num_inference_steps=12, seed=5, step_cache=0.6), conditioning(1)),
        *start_pictures(TINY_SDXL, job(seed=9), conditioning(2)),
    ]
    np.testing.assert_allclose(sample(both, denoise, 8), np.concatenate(alone), atol=1e-5)
