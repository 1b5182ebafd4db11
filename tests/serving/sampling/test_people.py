"""Several people in one picture: rows, shares, and pictures beside others; a plain callable is the denoiser."""

from dataclasses import replace

import numpy as np
import pytest

from faceclip_serving.contract.job import Job
from faceclip_serving.contract.request import parse_request
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.face.alignment import as_planes
from faceclip_serving.face.frames import Frame, whole
from faceclip_serving.models.people import shares_of
from faceclip_serving.models.prepare import plan_rows
from faceclip_serving.sampling.detail import Detail
from faceclip_serving.sampling.loop import Finished, Usage
from faceclip_serving.sampling.people import People, rows_of
from faceclip_serving.sampling.pictures import sample, start_pictures
from tests.serving.contract.test_parameters import raw

from .details import NETWORKS, face
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


def test_a_part_that_is_drawn_by_itself_is_whose_place_it_is_in():
    people = People(shares(2, 16))  # the left half is one's, the right half the other's
    np.testing.assert_allclose(people.seen(whole((128, 128), 128, 128), 8).shares, people.shares, atol=0.06)  # a little softer
    enlarged = people.seen(Frame((0, 0, 32, 64), 128, 64, (0, 0, 64, 128)), 8)
    assert enlarged.shares.shape == (2, 1, 16, 8)
    np.testing.assert_allclose(enlarged.shares[0], 1, atol=0.01)
    across = people.seen(Frame((32, 0, 96, 32), 64, 128, (0, 0, 128, 64)), 8).shares[:, 0]
    assert across[0, :, 0].min() > 0.9 and across[1, :, -1].min() > 0.9
    padded = people.seen(Frame((64, 0, 128, 64), 64, 128, (32, 0, 96, 64)), 8).shares  # its edges go on
    np.testing.assert_allclose(padded.sum(0), 1, atol=0.01)


def test_a_small_face_is_drawn_again_as_the_person_whose_place_it_is_in():
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    image, found = as_planes(pixels)[None], [face(12, 50, 16), face(100, 50, 16)]
    one, rows, _, _ = together(2, height=128, width=128, face_detail=0.5)

    def drawn(job, people):
        detail = Detail(TINY_SDXL, job, rows, NETWORKS, lambda _: found, None, people)
        work = detail.look(image, Finished(np.zeros((1, 4, 16, 16), np.float32), Usage()))
        return sample(work.pictures, denoise, 8)

    half = np.zeros((2, 1, 16, 16), np.float32)
    half[0, ..., :8] = half[1, ..., 8:] = 1
    both = drawn(one, People(half))
    for k, picture in enumerate(both):
        of_one = replace(one, rows={U: one.rows[U], F: one.rows[f"person {k}"]}, people=[])
        np.testing.assert_allclose(picture, drawn(of_one, None)[k], atol=1e-4)


def test_a_person_who_has_all_of_the_picture_is_the_picture_of_that_person():
    one, rows, _, _ = together(1)
    (u, f) = (one.rows[U][0], one.rows["person 0"][0])
    everywhere = start_pictures(TINY_SDXL, one, rows, None, People(np.ones((1, 1, 8, 8), np.float32)))
    found = sample(everywhere, denoise, 8)
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
