"""Scheduler options: what cannot be run is refused as the caller's own. What is drawn by the others: `test_probe`."""

import json
from dataclasses import replace

import numpy as np
import pytest
from diffusers import EulerDiscreteScheduler

from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.scheduler_options import EPSILON_OPTIONS
from faceclip_serving.contract.variants.flux import TINY_FLUX
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.sampling import schedule
from faceclip_serving.sampling.pictures import sample, start_pictures
from faceclip_serving.sampling.schedule import is_known, start_schedule

from .test_pictures import conditioning, denoise, job


@pytest.fixture(autouse=True)
def none_known(monkeypatch):
    """What another test has found is not found again."""
    monkeypatch.setattr(schedule, "_known", {})


VALUES = [
    (name, value)
    for name, may in EPSILON_OPTIONS.items()
    for value in may.as_json().get("choices") or ((1, 2, 3) if name == "solver_order" else (True,))
]


@pytest.mark.parametrize(
    ("scheduler", "steps", "options"),
    [
        ("dpmpp_2m", 49, {"use_karras_sigmas": True, "rescale_betas_zero_snr": True}),
        ("unipc", 49, {"use_karras_sigmas": True, "rescale_betas_zero_snr": True}),
        ("ddim", 10, {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
        ("lcm", 4, {"rescale_betas_zero_snr": True}),
    ],
)
def test_what_fails_in_the_middle_or_divides_by_zero_is_refused_before_it_begins(scheduler, steps, options):
    one = job(scheduler=scheduler, num_inference_steps=steps, scheduler_options=json.dumps(options))
    with pytest.raises(InvalidRequest, match=r"^scheduler_options: \w+ with .*; leave out an option"):
        start_pictures(TINY_SDXL, one, conditioning(1))


@pytest.mark.parametrize(
    ("scheduler", "steps", "options", "words"),
    [
        (
            "dpmpp_2m", 49, {"use_karras_sigmas": True, "rescale_betas_zero_snr": True},
            'scheduler_options: DPMSolverMultistepScheduler with {"rescale_betas_zero_snr": true, "use_karras_sigmas": true} and 49 steps'
            " cannot be run (IndexError: index 50 is out of bounds for dimension 0 with size 50); leave out an option, or choose another"
            " scheduler or number of steps",
        ),
        (
            "ddim", 10, {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
            'scheduler_options: DDIMScheduler with {"rescale_betas_zero_snr": true, "timestep_spacing": "trailing"} and 10 steps gives'
            " values that are not numbers; leave out an option, or choose another scheduler or number of steps",
        ),
        ("lcm", 60, {}, "num_inference_steps: LCMScheduler refuses 60: The combination of"),
    ],
)  # fmt: skip
def test_a_refusal_says_with_which_options_and_steps_and_why(scheduler, steps, options, words):
    one = job(scheduler=scheduler, num_inference_steps=steps, scheduler_options=json.dumps(options))
    with pytest.raises(InvalidRequest) as caught:
        start_schedule(TINY_SDXL, one.request)
    assert str(caught.value).startswith(words)


def test_options_in_another_order_are_the_same_schedule_and_sigmas_may_be_numbers_of_numpy():
    options = [json.dumps({"use_karras_sigmas": True, "timestep_spacing": "trailing"}),
               json.dumps({"timestep_spacing": "trailing", "use_karras_sigmas": True})]  # fmt: skip
    first, second = (start_schedule(TINY_SDXL, job(scheduler="dpmpp_2m", scheduler_options=each).request) for each in options)
    assert first is second
    request = replace(job().request, scheduler=TINY_FLUX.defaults.scheduler)
    assert start_schedule(TINY_FLUX, request).finite


def test_what_fails_before_the_first_step_is_told_in_the_same_words(monkeypatch):
    def broken(self, *arguments, **options):
        raise RuntimeError("no such spacing")

    monkeypatch.setattr(EulerDiscreteScheduler, "set_timesteps", broken)
    with pytest.raises(InvalidRequest) as caught:
        start_schedule(TINY_SDXL, job().request)
    assert str(caught.value) == (
        "scheduler_options: EulerDiscreteScheduler with {} and 4 steps cannot be run (RuntimeError: no such spacing); leave out an"
        " option, or choose another scheduler or number of steps"
    )


def test_a_schedule_is_found_once_and_the_oldest_is_forgotten_first(monkeypatch):
    monkeypatch.setattr(schedule, "KNOWN", 2)
    requests = [job(num_inference_steps=steps).request for steps in (3, 4, 5)]
    for i, request in enumerate(requests):
        assert not is_known(TINY_SDXL, request)
        assert start_schedule(TINY_SDXL, request) is start_schedule(TINY_SDXL, request)
        assert [is_known(TINY_SDXL, each) for each in requests] == [max(0, i - 1) <= j <= i for j in range(3)]


def test_values_of_another_type_are_refused_although_they_are_equal():
    for options in ({"solver_order": 2.0}, {"solver_order": True}, {"use_karras_sigmas": 1}):
        with pytest.raises(InvalidRequest, match="scheduler_options"):
            job(scheduler_options=json.dumps(options))


def test_a_variant_that_is_in_no_table_has_a_schedule_of_its_own():
    own = {**TINY_SDXL.scheduler_config, "beta_end": 0.02}
    changed = replace(TINY_SDXL, name="mine", scheduler_config=own)
    theirs, ours = (start_pictures(each, job(), conditioning(1))[0].schedule for each in (TINY_SDXL, changed))
    assert theirs.steps.shape == ours.steps.shape and ours.initial_scale > theirs.initial_scale


def test_json_too_deep_to_read_is_the_callers_error():
    with pytest.raises(
        InvalidRequest, match="scheduler_options: expected a JSON object of plain values, got one nested too deeply"
    ):
        job(scheduler_options="[" * 5000 + "]" * 5000)


def test_every_option_that_is_offered_works_with_some_scheduler():
    for name, value in VALUES:
        works = []
        for scheduler in TINY_SDXL.schedulers:
            one = job(scheduler=scheduler, num_inference_steps=4, scheduler_options=json.dumps({name: value}))
            try:
                works.append(np.isfinite(sample(start_pictures(TINY_SDXL, one, conditioning(1)), denoise, 8)).all())
            except InvalidRequest:
                continue
        assert any(works), f"{name}: {value} can never be had"
