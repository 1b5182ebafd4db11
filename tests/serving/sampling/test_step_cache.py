"""When a prediction serves again: changes add up until the threshold, and never for other guidance, at the start or the end."""

import pytest
import torch

from faceclip_serving.sampling.step_cache import StepCache

STEPS = 10
PREDICTION = torch.ones(3)


def cache(threshold=0.5, value=1.0, of="guidance"):
    """One that remembers an input whose values are all `value`."""
    made = StepCache(threshold)
    made.remember(torch.full((1, 4), value), PREDICTION, of)
    return made


def recall(made, value, step=5, of="guidance"):
    return made.recall(torch.full((1, 4), value), step, STEPS, of)


def test_an_input_that_hardly_changed_takes_the_last_prediction():
    made = cache()
    assert recall(made, 1.0) is PREDICTION and recall(made, 0.75) is PREDICTION
    assert made.skipped == 2


@pytest.mark.parametrize("value", [1.5, 0.5, -1.0])
def test_a_change_that_reaches_the_threshold_asks_for_a_new_one(value):
    made = cache()
    assert recall(made, value) is None
    assert made.skipped == 0


def test_changes_are_relative_to_the_last_input_and_add_up_until_the_denoiser_was_called():
    made = cache(threshold=0.5, value=4.0)
    assert recall(made, 5.0) is PREDICTION  # a quarter
    assert recall(made, 6.0) is PREDICTION  # and a fifth
    assert recall(made, 7.0) is None  # and a sixth
    made.remember(torch.full((1, 4), 7.0), PREDICTION, "guidance")
    assert recall(made, 8.0) is PREDICTION
    assert made.skipped == 3


def test_an_input_of_zeros_is_no_division_by_zero():
    made = cache(value=0.0)
    assert recall(made, 0.0) is PREDICTION
    assert recall(made, 1e-9) is None


@pytest.mark.parametrize(("step", "serves"), [(0, False), (1, False), (2, True), (STEPS - 2, True), (STEPS - 1, False)])
def test_the_first_two_steps_and_the_last_are_always_computed(step, serves):
    assert (recall(cache(), 1.0, step) is PREDICTION) == serves


def test_other_guidance_needs_a_call_of_its_own():
    assert recall(cache(), 1.0, of="other") is None


@pytest.mark.parametrize("made", [cache(threshold=0.0), StepCache(0.5)], ids=["off", "nothing known"])
def test_without_a_threshold_or_a_prediction_nothing_serves(made):
    assert recall(made, 1.0, of=None) is None and recall(made, 1.0) is None
    assert made.skipped == 0
