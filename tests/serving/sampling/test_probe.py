"""A schedule's numbers against diffusers' own scheduler, step by step, for whatever a request may combine."""

import inspect
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.job import Job
from faceclip_serving.contract.request import parse_request
from faceclip_serving.contract.scheduler_options import EPSILON_OPTIONS, FLOW_OPTIONS
from faceclip_serving.contract.schedules import make_scheduler
from faceclip_serving.contract.variants.flux import TINY_FLUX
from faceclip_serving.contract.variants.sdxl import NANO, TINY_SDXL
from faceclip_serving.sampling.pictures import sample, start_pictures
from faceclip_serving.sampling.probe import Schedule, _factor, _noise_factors, probed
from tests.serving.contract.test_parameters import raw

SIDE = {TINY_SDXL.name: 64, NANO.name: 128, TINY_FLUX.name: 64}
MIX = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)


def choices(options):
    """Every option with every value, or some of those between two ends."""
    some = {"solver_order": (1, 2, 3), "shift": (0.5, 5.0)}
    return [(n, v) for n, may in options.items() for v in some.get(n) or may.as_json().get("choices") or (True,)]


HARDEST = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
"""Begins with a signal of zero."""


def combinations(variant):
    """Steps and options: no option and the hardest two in 1, 4 and 49 steps, each alone in 1, 4 and 13; for one variant also any two,
    which take turns with 1, 4 and 16."""
    found = choices(FLOW_OPTIONS if variant is TINY_FLUX else EPSILON_OPTIONS)
    alone = [dict([one]) for one in found]
    pairs = [dict(pair) for pair in itertools.combinations(found, 2) if pair[0][0] != pair[1][0]]
    turns = zip(itertools.cycle((1, 4, 16)), pairs, strict=False)
    ends = [{}] if variant is TINY_FLUX else [{}, HARDEST]
    several = [*itertools.product((1, 4, 49), ends), *itertools.product((1, 4, 13), alone)]
    return [*several, *(turns if variant is TINY_SDXL else ())]


def network(inputs):
    """Mixes channels, and depends on every input; each row on its own."""
    rows, channels = inputs["latents"].shape[:2]
    told = sum(array.reshape(rows, -1).mean(axis=1) for name, array in inputs.items() if name != "latents")
    mixed = np.einsum("ij,bjhw->bihw", MIX[:channels, :channels] / channels**0.5, inputs["latents"])
    return np.tanh(mixed) + 0.1 * np.sin(told)[:, None, None, None].astype(np.float32)


def asked(variant, **values):
    side = SIDE[variant.name]
    request = parse_request(variant, raw(height=side, width=side, seed=3, guidance_scale=4.0, **values))
    rng = np.random.default_rng(1)
    conditioning = {t.name: rng.standard_normal(t.shape({"rows": 2})).astype(np.float32) for t in variant.conditioning}
    return Job(request, {"unconditional": [0], "identity": [1]}, [1.0], "", None, "digest"), conditioning


def by_diffusers(variant, job, conditioning):
    """The latents, and the largest value on the way to them."""
    request = job.request
    config, steps, side = variant.scheduler_config, request.num_inference_steps, request.height
    scheduler = make_scheduler(request.scheduler, config, request.scheduler_options)
    scheduler.set_timesteps(**variant.timesteps_for(config, steps, side, side))
    generator = torch.Generator().manual_seed(3)
    arguments = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    cells = side // variant.latent_scale
    latents = torch.randn((1, variant.latent_channels, cells, cells), generator=generator)
    latents *= getattr(scheduler, "init_noise_sigma", 1.0)
    extras = {name: np.repeat(array, 2, 0) for name, array in variant.extras_for(side, side).items()}
    largest = float(latents.abs().max())
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep) if hasattr(scheduler, "scale_model_input") else latents
        times = np.full((2, 1), float(timestep), np.float32)
        both = network({"latents": np.repeat(scaled.numpy(), 2, 0), "timestep": times, **conditioning, **extras})
        u, f = torch.from_numpy(both)[:, None]
        latents = scheduler.step(u + 4.0 * (f - u), timestep, latents, **arguments, return_dict=False)[0]
        largest = max(largest, float(latents.abs().max()))
    return latents.numpy(), largest


CASES = [(variant, scheduler) for variant in (TINY_SDXL, NANO, TINY_FLUX) for scheduler in variant.schedulers]


@pytest.mark.proof
@pytest.mark.parametrize(("variant", "scheduler"), CASES, ids=[f"{v.name}-{s}" for v, s in CASES])
def test_pictures_are_those_of_diffusers_whatever_the_options_and_steps(variant, scheduler):
    """To 1e-5 of the latents, or a few roundings of the largest value on the way, from which diffusers subtracts: 4096 with a
    signal of zero to begin with. Measured: 6e-6 of the latents, 3e-4 in that case."""
    compared = 0
    for steps, options in combinations(variant):
        case = asked(variant, scheduler=scheduler, num_inference_steps=steps, scheduler_options=json.dumps(options))
        try:
            pictures = start_pictures(variant, *case)
        except InvalidRequest as error:
            assert options or scheduler == "LCMScheduler", f"refused without options: {error}"
            assert "scheduler_options" in str(error) or "num_inference_steps" in str(error)
            continue
        expected, largest = by_diffusers(variant, *case)
        found = sample(pictures, network, 8)
        assert np.isfinite(found).all(), options
        error, allowed = np.abs(found - expected).max(), 1e-5 * np.abs(expected).max() + 4 * largest * np.finfo(np.float32).eps
        assert error <= allowed, f"{steps} steps, {options}: {error:.2g}, allowed {allowed:.2g}"
        compared += 1
    assert compared >= 5


@pytest.mark.parametrize("option", ["clip_sample", "thresholding"])
def test_a_scheduler_that_is_not_linear_is_refused(option):
    clipping = replace(TINY_SDXL, scheduler_config={**TINY_SDXL.scheduler_config, option: True})
    with pytest.raises(InvalidRequest, match=r"^scheduler_options: DDIMScheduler with \{\} and 7 steps cannot be run .*linear"):
        start_pictures(clipping, *asked(clipping, scheduler="ddim", num_inference_steps=7))


class Affine:
    """Stands in for a scheduler: what it adds, scales by, or keeps is for a test to spoil."""

    init_noise_sigma = 1.0
    timesteps = torch.tensor([2.0, 1.0])

    def __init__(self, offset=0.0, scale=lambda sample: sample, kept=0):
        self.offset, self.scale, self.kept = offset, scale, [None] * kept

    def scale_model_input(self, sample, timestep):
        return self.scale(sample)

    def step(self, prediction, timestep, sample, return_dict):
        self.kept = [sample + prediction for _ in self.kept]
        return (sample - prediction + self.offset,)


def test_what_no_matrix_can_say_is_not_taken_for_one():
    assert probed(Affine()).steps.tolist() == [[[1.0, -1.0]]] * 2
    assert probed(Affine(kept=2)).steps.tolist() == [[[1.0, -1.0]]] * 2, "what is never read is not kept"
    with pytest.raises(ValueError, match="not linear"):
        probed(Affine(offset=0.5))
    with pytest.raises(ValueError, match="depends on the input"):
        probed(Affine(scale=lambda sample: sample.clamp(-1, 1)))
    with pytest.raises(ValueError, match="remembers 6 tensors"):
        probed(Affine(kept=6))


def test_an_input_that_is_scaled_by_its_own_value_is_refused():
    for scale in (torch.abs, torch.tanh, lambda sample: sample * sample):
        with pytest.raises(ValueError, match="the scale of the denoiser's input depends on the input"):
            _factor(scale)


def test_a_scale_is_asked_with_numbers_as_a_picture_has_them():
    seen = []
    assert _factor(lambda sample: seen.append(sample.dtype) or 0.25 * sample) == 0.25
    assert seen == [torch.float32]


@pytest.mark.parametrize("where", ["input_scales", "initial_scale", "steps"])
def test_one_number_that_is_none_makes_a_schedule_unfit(where):
    whole = Schedule((999.0, 500.0), (1.0, 0.5), 1.0, np.ones((2, 1, 2), np.float32), (False, False))
    assert whole.finite
    steps = whole.steps.copy()
    steps[1, 0, 0] = np.inf
    spoiled = {"input_scales": (1.0, np.nan), "initial_scale": np.inf, "steps": steps}[where]
    assert not replace(whole, **{where: spoiled}).finite


def test_of_flow_matching_a_picture_gives_way_as_noise_comes():
    scheduler = make_scheduler("FlowMatchEulerDiscreteScheduler", TINY_FLUX.scheduler_config)
    scheduler.set_timesteps(4, mu=0.5)
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        found = _noise_factors(scheduler, timestep[None], np.random.default_rng(0))
        np.testing.assert_allclose(found, (1 - sigma, sigma), atol=1e-6)


def test_a_combination_that_a_scheduler_refuses_is_named_with_it():
    options = {"use_karras_sigmas": True, "use_beta_sigmas": True}
    with pytest.raises(InvalidRequest, match=r"scheduler_options: DPMSolverMultistepScheduler refuses .*use_beta_sigmas"):
        make_scheduler("DPMSolverMultistepScheduler", TINY_SDXL.scheduler_config, options)
