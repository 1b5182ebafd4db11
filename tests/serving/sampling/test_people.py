"""Several people in one picture: rows, shares, and pictures beside others; a plain callable is the denoiser."""

from dataclasses import replace

import numpy as np
import pytest

from faceclip_serving.contract.job import Job
from faceclip_serving.contract.request import parse_request
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.models.people import shares_of
from faceclip_serving.models.prepare import plan_rows
from faceclip_serving.sampling.people import People, rows_of
from faceclip_serving.sampling.pictures import sample, start_pictures
from tests.serving.contract.test_parameters import raw

from .test_pictures import conditioning, denoise
from .test_pictures import job as alone

U, T, F = "unconditional", "text", "identity"
CHAINS = ((U, F), (F,), (U, T), (T,), (T, F), (U, T, F))


def shares(people, size=8):
    covered = np.zeros((people, size, size), np.float32)
    for k in range(people):
        covered[k, :, k * size // people : (k + 1) * size // people] = 1
    return shares_of(covered, [1.0] * people)


def together(people, seed=1, weights=None, **values):
    """A job of people, its conditioning, and where they are."""
    request = parse_request(TINY_SDXL, raw(**{"num_inference_steps": 4, "height": 64, "width": 64, "seed": seed, **values}))
    faces = [[k] for k in range(people)]
    request = replace(request, people=[{"prompt": None}] * people)
    roles = [role for _, role, _ in plan_rows(request, people, 0, faces)]
    rows = {role: [i for i, other in enumerate(roles) if other == role] for role in roles}
    made = Job(request, rows, [1.0] * people, "", None, "digest", people=faces)
    where = shares(people) if weights is None else shares(people) * np.float32(weights)
    return made, conditioning(seed, len(roles)), None, People(where)


@pytest.mark.parametrize("branches", CHAINS)
@pytest.mark.parametrize("people", [1, 2, 3, 4])
def test_predictions_of_rows_become_those_of_branches_by_the_formula(branches, people):
    rows = rows_of(branches, people)
    assert len(rows) == (people + 1 + (U in branches) if F in branches else len(branches))
    predictions = np.random.default_rng(people).standard_normal((len(rows), 4, 8, 8)).astype(np.float32)
    found = People(shares(people)).of_branches(branches, predictions)
    by_row = dict(zip(rows, predictions, strict=True))
    mixed = by_row[T] * 1 if F in branches else None
    for k in range(people if F in branches else 0):
        mixed = mixed + shares(people)[k] * (by_row[f"person {k}"] - by_row[T])
    expected = [mixed if branch == F else by_row[branch] for branch in branches]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_shares_are_soft_parts_of_the_whole_and_weights_scale_them():
    for people in (1, 2, 3, 4):
        np.testing.assert_allclose(shares(people, 16).sum(0), 1, atol=1e-6)
    left = np.zeros((2, 16, 16), np.float32)
    left[0, :, :8] = left[1, :, 4:12] = 1
    found = shares_of(left, [1.0, 0.5])[:, 0]
    assert found.min() >= 0 and found.sum(0).max() <= 1 + 1e-6, "where people overlap, they share"
    np.testing.assert_allclose(found[:, 8, 6], [0.5, 0.25], atol=0.05)
    assert found[0, 8, 0] == 1 and found[:, 8, 15].max() < 1e-3 and 0.01 < found[1, 8, 11] / 0.5 < 0.99


def test_a_person_who_has_all_of_the_picture_is_the_picture_of_that_person():
    one, rows, _, _ = together(1)
    (u, f) = (one.rows[U][0], one.rows["person 0"][0])
    whole = start_pictures(TINY_SDXL, one, rows, None, People(np.ones((1, 1, 8, 8), np.float32)))
    found = sample(whole, denoise, 8)
    expected = sample(start_pictures(TINY_SDXL, alone({U: [u], F: [f]}, seed=1), rows), denoise, 8)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_without_weight_it_is_the_picture_of_the_common_prompt():
    one, rows, _, people = together(2, weights=0)
    found = sample(start_pictures(TINY_SDXL, one, rows, None, people), denoise, 8)
    expected = sample(start_pictures(TINY_SDXL, alone({U: one.rows[U], T: one.rows[T]}, (), seed=1), rows), denoise, 8)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("max_rows", [1, 2, 3, 8, 16])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"guidance_scale": 1.0},
        {"id_start": 0.5},
        {"guidance_start": 0.25, "guidance_end": 0.75},
        {"text_guidance_scale": 5.0, "id_guidance_scale": 2.0},
        {"blend_weight": 0.5},
        {"step_cache": 0.6},
        {"num_images_per_prompt": 2},
        {"scheduler": "EulerAncestralDiscreteScheduler"},
    ],
    ids=str,
)
def test_pictures_of_people_and_others_are_the_same_beside_each_other(values, max_rows):
    """To the bit, in every order of rows: in calls of any size."""
    made = [together(people, seed=people, **values) for people in (2, 3, 4)]
    own = [sample(start_pictures(TINY_SDXL, *each), denoise, max_rows) for each in made]
    other = sample(start_pictures(TINY_SDXL, alone(seed=9), conditioning(9)), denoise, max_rows)
    pictures = [picture for each in made for picture in start_pictures(TINY_SDXL, *each)]
    beside = sample([*pictures, *start_pictures(TINY_SDXL, alone(seed=9), conditioning(9))], denoise, max_rows)
    np.testing.assert_array_equal(beside, np.concatenate([*own, other]))


def test_each_person_has_a_row_and_the_common_prompt_another():
    for people in (1, 2, 3, 4):
        one, rows, _, where = together(people)
        (picture,) = start_pictures(TINY_SDXL, one, rows, None, where)
        assert picture.rows == (U, T, *(f"person {k}" for k in range(people)))
    one, rows, _, where = together(2, id_start=0.5)
    (picture,) = start_pictures(TINY_SDXL, one, rows, None, where)
    assert picture.rows == (U, T) and picture.steps_alike() == 2, "before the faces act, nobody has a row"


def test_plans_name_own_prompts_and_blend_each_of_them():
    request = parse_request(TINY_SDXL, raw(blend_weight=0.5))
    request = replace(request, people=[{"prompt": None}, {"prompt": "a hat"}])
    assert plan_rows(request, 3, 0, [[0, 2], [1]]) == [
        ("negative", U, -1),
        ("prompt", T, -1),
        ("prefixed", "person 0", 0),
        ("prefixed", "person 0", 2),
        ("prefixed", "prefixed_text 0", -1),
        ("people[1]: prompt", "person 1", 1),
        ("people[1]: prompt", "prefixed_text 1", -1),
    ]
