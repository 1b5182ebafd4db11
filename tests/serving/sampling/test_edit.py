"""Pictures that start from another one, or are drawn within a mask: latents as diffusers' pipelines make them, in ticks with all others."""

import inspect
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.scheduler_options import EPSILON_OPTIONS, FLOW_OPTIONS
from faceclip_serving.contract.schedules import begun_steps, make_scheduler, whole_steps
from faceclip_serving.contract.variants.flux import TINY_FLUX
from faceclip_serving.contract.variants.sdxl import NANO, TINY_SDXL
from faceclip_serving.sampling.edit import Source
from faceclip_serving.sampling.guidance import branches_needed
from faceclip_serving.sampling.pictures import sample, start_pictures
from tests.serving.sampling.test_pictures import conditioning, denoise, job
from tests.serving.sampling.test_probe import SIDE, asked, choices, network

CASES = [(variant, scheduler) for variant in (TINY_SDXL, NANO, TINY_FLUX) for scheduler in variant.schedulers]
STRENGTHS = (0.3, 0.7, 1.0)


def source(variant, side, masked, from_noise=False):
    rng = np.random.default_rng(5)
    cells = side // variant.latent_scale
    shape = (1, variant.latent_channels, cells, cells)
    mask = (rng.random((1, 1, cells, cells)) < 0.5).astype(np.float32) if masked else None
    mean, std = rng.standard_normal(shape), 0.1 * rng.random(shape)
    return Source(mean.astype(np.float32), std.astype(np.float32), mask, from_noise)


def by_diffusers(variant, one, arrays, given):
    """The latents, and the largest value on the way: what diffusers' pipelines call, in their order."""
    request = one.request
    config, steps, side = variant.scheduler_config, request.num_inference_steps, request.height
    scheduler = make_scheduler(request.scheduler, config, request.scheduler_options)
    scheduler.set_timesteps(**variant.timesteps_for(config, steps, side, side))
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(one.begin)
    timesteps = scheduler.timesteps[one.begin :]
    generator = torch.Generator().manual_seed(request.seed)
    mean, std = torch.from_numpy(given.mean), torch.from_numpy(given.std)

    def noisy(image, noise, timestep):
        if hasattr(scheduler, "scale_noise"):
            return scheduler.scale_noise(image, timestep, noise)
        return scheduler.add_noise(image, noise, timestep)

    image = mean + std * torch.randn(mean.shape, generator=generator)
    noise = torch.randn(mean.shape, generator=generator)
    latents = noise * getattr(scheduler, "init_noise_sigma", 1.0) if given.from_noise else noisy(image, noise, timesteps[:1])
    if given.mask is not None:
        torch.randn(mean.shape, generator=generator)
    arguments = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    extras = {name: np.repeat(array, 2, 0) for name, array in variant.extras_for(side, side).items()}
    largest = float(latents.abs().max())
    for i, timestep in enumerate(timesteps):
        scaled = scheduler.scale_model_input(latents, timestep) if hasattr(scheduler, "scale_model_input") else latents
        times = np.full((2, 1), float(timestep), np.float32)
        both = network({"latents": np.repeat(scaled.numpy(), 2, 0), "timestep": times, **arrays, **extras})
        u, f = torch.from_numpy(both)[:, None]
        latents = scheduler.step(u + 4.0 * (f - u), timestep, latents, **arguments, return_dict=False)[0]
        if given.mask is not None:
            mask = torch.from_numpy(given.mask)
            kept = noisy(image, noise, timesteps[i + 1 : i + 2]) if i + 1 < len(timesteps) else image
            latents = (1 - mask) * kept + mask * latents
        largest = max(largest, float(latents.abs().max()))
    return latents.numpy(), largest


@pytest.mark.proof
@pytest.mark.parametrize(("variant", "scheduler"), CASES, ids=[f"{v.name}-{s}" for v, s in CASES])
def test_pictures_from_a_picture_are_those_of_diffusers(variant, scheduler):
    """To the same bound as pictures from noise, see `test_probe`."""
    compared = 0
    found_options = choices(FLOW_OPTIONS if variant is TINY_FLUX else EPSILON_OPTIONS)
    for strength, masked, options in itertools.product(STRENGTHS, (False, True), [{}, *(dict([one]) for one in found_options)]):
        one, arrays = asked(variant, scheduler=scheduler, num_inference_steps=10, scheduler_options=json.dumps(options))
        one = replace(one, begin=variant.first_step(10, strength))
        given = source(variant, SIDE[variant.name], masked, from_noise=masked and strength == 1.0)
        try:
            pictures = start_pictures(variant, one, arrays, given)
        except InvalidRequest as error:
            assert options or scheduler == "LCMScheduler", f"refused without options: {error}"
            continue
        expected, largest = by_diffusers(variant, one, arrays, given)
        found = sample(pictures, network, 8)
        error, allowed = np.abs(found - expected).max(), 1e-5 * np.abs(expected).max() + 4 * largest * np.finfo(np.float32).eps
        assert error <= allowed, f"strength {strength}, mask {masked}, {options}: {error:.2g}, allowed {allowed:.2g}"
        compared += 1
    assert compared >= 6


@given(
    kinds=st.lists(
        st.tuples(st.sampled_from(["text", "image", "mask"]), st.integers(0, 3), st.integers(2, 6)), min_size=2, max_size=5
    ),
    max_rows=st.integers(2, 8),
)
@settings(max_examples=25)
def test_a_picture_is_the_same_whichever_kinds_share_its_ticks(kinds, max_rows):
    def begun(i, kind, begin, steps):
        one = job(seed=i, num_inference_steps=steps, scheduler=TINY_SDXL.schedulers[i % len(TINY_SDXL.schedulers)])
        if kind == "text":
            return start_pictures(TINY_SDXL, one, conditioning(i))
        given = source(TINY_SDXL, 64, kind == "mask")
        return start_pictures(TINY_SDXL, replace(one, begin=min(begin, steps - 1)), conditioning(i), given)

    alone = [sample(begun(i, *kind), denoise, 8) for i, kind in enumerate(kinds)]
    together = sample([picture for i, kind in enumerate(kinds) for picture in begun(i, *kind)], denoise, max_rows)
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_outside_the_mask_the_latents_are_the_pictures_own():
    given = source(TINY_SDXL, 64, masked=True)
    latents = sample(start_pictures(TINY_SDXL, replace(job(seed=1), begin=0), conditioning(1), given), denoise, 8)
    image = given.mean + given.std * torch.randn(given.mean.shape, generator=torch.Generator().manual_seed(1)).numpy()
    outside = np.broadcast_to(given.mask == 0, image.shape)
    np.testing.assert_array_equal(latents[outside], image[outside])
    assert np.abs(latents - image)[~outside].max() > 0.1


def test_each_picture_of_a_request_starts_from_its_own_noise():
    given = source(TINY_SDXL, 64, masked=True)
    both = start_pictures(TINY_SDXL, replace(job(seed=1, num_images_per_prompt=2), begin=2), conditioning(1), given)
    second = start_pictures(TINY_SDXL, replace(job(seed=2), begin=2), conditioning(1), given)
    np.testing.assert_array_equal(sample(both, denoise, 8)[1:], sample(second, denoise, 8))


def test_guidance_is_that_of_the_steps_which_are_run():
    one = replace(job({"identity": [1]}, seed=1, num_inference_steps=8, guidance_end=0.5), begin=6)
    [picture] = start_pictures(TINY_SDXL, one, conditioning(1), source(TINY_SDXL, 64, False))
    assert [chain.branches for chain in picture.chains] == [("identity",)] * 2
    assert branches_needed(one.request, True, one.begin) == ("identity",)
    assert branches_needed(one.request, True) == ("unconditional", "identity")


@given(steps=st.integers(1, 200), strength=st.floats(0.0, 1.0))
def test_a_strength_leaves_so_many_steps_as_in_diffusers(steps, strength):
    assert whole_steps(steps, strength) == max(steps - min(int(steps * strength), steps), 0)
    assert 0 <= begun_steps(steps, strength) <= whole_steps(steps, strength) <= steps
    assert whole_steps(steps, 1.0) == begun_steps(steps, 1.0) == 0
    assert whole_steps(steps, 0.0) == begun_steps(steps, 0.0) == steps
