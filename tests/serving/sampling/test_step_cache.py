"""When a prediction serves again: changes add up until the threshold, and never for other guidance, at the start or the end."""

import numpy as np
import pytest

from faceclip_serving.sampling.step_cache import StepCache

STEPS = 10


def cache(threshold=0.5, value=1.0, of="guidance"):
    """One that remembers an input whose values are all `value`."""
    made = StepCache(threshold)
    made.remember(np.full((1, 4), value, np.float32), of)
    return made


def serves(made, value, step=5, of="guidance"):
    return made.serves(np.full((1, 4), value, np.float32), step, STEPS, of)


def test_an_input_that_hardly_changed_takes_the_last_prediction():
    made = cache()
    assert serves(made, 1.0) and serves(made, 0.75)
    assert made.skipped == 2


@pytest.mark.parametrize("value", [1.5, 0.5, -1.0])
def test_a_change_that_reaches_the_threshold_asks_for_a_new_one(value):
    made = cache()
    assert not serves(made, value)
    assert made.skipped == 0


def test_changes_are_relative_to_the_last_input_and_add_up_until_the_denoiser_was_called():
    made = cache(threshold=0.5, value=4.0)
    assert serves(made, 5.0)  # a quarter
    assert serves(made, 6.0)  # and a fifth
    assert not serves(made, 7.0)  # and a sixth
    made.remember(np.full((1, 4), 7.0, np.float32), "guidance")
    assert serves(made, 8.0)
    assert made.skipped == 3


def test_an_input_of_zeros_is_no_division_by_zero():
    made = cache(value=0.0)
    assert serves(made, 0.0)
    assert not serves(made, 1e-9)


@pytest.mark.parametrize(("step", "expected"), [(0, False), (1, False), (2, True), (STEPS - 2, True), (STEPS - 1, False)])
def test_the_first_two_steps_and_the_last_are_always_computed(step, expected):
    assert serves(cache(), 1.0, step) == expected


def test_other_guidance_needs_a_call_of_its_own():
    assert not serves(cache(), 1.0, of="other")


@pytest.mark.parametrize("made", [cache(threshold=0.0), StepCache(0.5)], ids=["off", "nothing known"])
def test_without_a_threshold_or_a_prediction_nothing_serves(made):
    assert not serves(made, 1.0, of=None) and not serves(made, 1.0)
    assert made.skipped == 0
