"""`python -m benchmarks photographs`: colours that are read, distances that are compared, and what cannot be measured."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.measure.pictures import Picture, decoded
from benchmarks.quality.form import Form
from benchmarks.quality.newcomers import (
    EXAMPLE,
    PERMUTATIONS,
    PROMPTS,
    Newcomer,
    NewcomersError,
    colours,
    lifelike_people,
    measure,
    permuted,
    read_photographs,
)
from benchmarks.quality.parts import LEFT_EYE, MOUTH, Part, Parts
from training.world.people import HAIR_COLOURS, SKIN, sample_identity, sample_scene
from training.world.render import Portrait, render

SHADED = 22
"""CIELAB: how far light and shade take a colour that is drawn."""


def all_parts(bound: float) -> Parts:
    """For which everything is well formed within a bound."""
    mouth, eye = (
        Part(place, np.zeros((place.width * place.height * 3, 1), np.float32), np.zeros((1, 1), np.float32), bound)
        for place in (MOUTH, LEFT_EYE)
    )
    return Parts(mouth, eye)


def portrait(skin: float, hair: str, number: int = 3) -> Portrait:
    person = replace(
        sample_identity(number),
        skin=skin,
        hair_colour=hair,
        hair_style="short",
        beard="none",
        glasses="none",
        freckles=0.0,
        blush=0.0,
    )
    scene = replace(sample_scene("newcomers", pose=0.0), hat="none", time="day", light="soft", expression="neutral")
    return render(person, scene, 256)


def lab(colour: tuple[float, float, float]) -> np.ndarray:
    return cv2.cvtColor(np.float32([[colour]]) / 255, cv2.COLOR_RGB2LAB)[0, 0]


@pytest.mark.parametrize("hair", HAIR_COLOURS)
@pytest.mark.parametrize("skin", range(len(SKIN)))
def test_skin_and_hair_are_read_as_they_were_drawn(skin: int, hair: str) -> None:
    shot = portrait(skin / (len(SKIN) - 1), hair)
    found = colours(shot.image, shot.landmarks.astype(np.float64))
    assert np.linalg.norm(found[0] - lab(SKIN[skin])) < SHADED and np.linalg.norm(found[1] - lab(HAIR_COLOURS[hair])) < SHADED


def test_what_lies_outside_of_a_photograph_is_not_read() -> None:
    shot = portrait(0.5, "red")
    marks = shot.landmarks.astype(np.float64)
    top = int(marks[:2, 1].mean() - 1.2 * (marks[3:, 1].mean() - marks[:2, 1].mean()))  # hair is left at the edge alone
    cut = colours(shot.image[top:], marks - [0, top])
    assert np.linalg.norm(cut - colours(shot.image, marks), axis=1).max() < SHADED


def test_p_is_the_share_of_permutations_that_are_as_near() -> None:
    n = 5
    apart = 10.0 * (1 - np.eye(n))
    assert permuted(apart[None]) == pytest.approx(1 / 120)
    assert permuted(np.ones((1, n, n))) == 1.0
    assert permuted(10 - apart[None]) == 1.0  # every other order is nearer
    many = 10.0 * (1 - np.eye(12)) + np.random.default_rng(0).uniform(0, 1, (12, 12))
    assert permuted(many[None]) == pytest.approx(1 / PERMUTATIONS) and permuted(many[None]) == permuted(many[None])


def test_pictures_are_permuted_prompt_by_prompt_and_those_without_a_face_go_along() -> None:
    apart = np.tile(10.0 * (1 - np.eye(3)), (3, 1, 1))
    assert permuted(apart) == pytest.approx(1 / 6**3)
    swapped = apart.copy()
    swapped[2] = swapped[2][[1, 0, 2]]  # two pictures of a prompt show each the other
    wrong = [sum(i != j for i, j in enumerate(order)) for order in itertools.permutations(range(3))]
    as_near = sum(sum(three) <= 2 for three in itertools.product(wrong, repeat=3))  # the swap is among each prompt's orders
    assert permuted(swapped) == pytest.approx(as_near / 6**3)
    swapped[2, :2] = np.nan  # without a face neither is counted, and the rest is as near as can be: one of 36, of 6 two
    assert permuted(swapped) == pytest.approx(2 / 6**3)
    assert permuted(np.tile(10.0 * (1 - np.eye(4)), (4, 1, 1))) <= 3 / PERMUTATIONS  # 331,776 ways: at random


def test_pictures_of_each_photographs_own_person_are_nearer_and_pictures_without_a_face_are_counted() -> None:
    kinds = [(0.05, "black"), (0.95, "white"), (0.4, "red"), (0.7, "blonde"), (0.2, "blue")]
    shots = [portrait(*kind) for kind in kinds]
    asked: list[dict[str, object]] = []

    def call(**values: object) -> Picture:
        asked.append(values)
        (sent,) = values["face_images"]  # type: ignore[misc]
        if values["prompt"] == PROMPTS[0]:
            return np.full((128, 128, 3), 128, np.uint8)
        return cv2.resize(decoded(sent), (128, 128), interpolation=cv2.INTER_AREA)

    everything = Form(np.zeros(14), np.zeros((14, 14)), 0.0)
    found, rows = measure(
        [Newcomer(shot.image, shot.landmarks.astype(np.float64)) for shot in shots], call, everything, all_parts(2.0)
    )
    assert found["well_formed"] == found["face_found"]
    assert found["mouths_well_formed"] == found["eyes_well_formed"] == 1.0
    assert found["photographs"] == 5 and found["pictures"] == 5 * len(PROMPTS) == len(asked)
    assert found["face_found"] <= 1 - 1 / len(PROMPTS) and found["face_found"] > 0.5
    for name in ("skin", "hair"):
        assert found[f"{name}_distance"] < 12 < 20 < found[f"{name}_distance_shuffled"]
        assert found[f"{name}_p_photographs"] == pytest.approx(1 / 120, abs=1e-4)
        assert found[f"{name}_p"] <= 3 / PERMUTATIONS
    assert [len(row) for row in rows] == [1 + len(PROMPTS)] * 5
    assert len({(values["seed"], values["prompt"]) for values in asked}) == len(asked)


def test_one_photograph_has_nobody_to_be_compared_with(tmp_path: Path) -> None:
    (one,) = read_photographs([EXAMPLE], False)
    found, _ = measure([one], lambda **values: one.pixels, Form(np.zeros(14), np.zeros((14, 14)), -1.0), all_parts(-1.0))
    assert found["well_formed"] == found["mouths_well_formed"] == found["eyes_well_formed"] == 0.0
    assert found["face_found"] == 1.0 and found["skin_distance"] == found["hair_distance"] == 0.0
    assert found["skin_p"] is found["hair_p"] is found["skin_distance_shuffled"] is found["skin_p_photographs"] is None


def test_photographs_come_from_files_and_folders(tmp_path: Path) -> None:
    crop = lifelike_people(1)[0].pixels
    Image.fromarray(crop).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no picture")
    both = read_photographs([tmp_path, tmp_path / "a.png"], True)
    assert len(both) == 2 and all(one.aligned and np.array_equal(one.pixels, crop) for one in both)
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "b.png")
    with pytest.raises(NewcomersError, match=r"no face is found in .*b\.png; use another photograph, or --aligned-photos"):
        read_photographs([tmp_path / "b.png"], False)
    for wrong in ("notes.txt", "missing.png"):
        with pytest.raises(NewcomersError, match=f"expected a picture that can be read, got .*{wrong}"):
            read_photographs([tmp_path / wrong], False)
