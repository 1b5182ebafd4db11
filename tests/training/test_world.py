"""The rendered world: deterministic, varied, and labelled by what it really shows."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest

from faceclip_serving.face.alignment import TEMPLATE, apply, fit_similarity
from training.pictures.crops import aligned_crop
from training.pictures.dataset import PICTURES, SPLITS, scene_of
from training.world.captions import caption, clothing, describe, headwear
from training.world.people import COLOURS, GARMENTS, HATS, PLACES, Identity, Scene, sample_identity, sample_scene
from training.world.render import HEAD, landmarks, render


def portrait(person: Identity, **changes: object) -> Scene:
    frontal = replace(sample_scene("test", pose=0.0), place="stage", time="day", light="soft", hat="none", expression="neutral")
    return replace(frontal, **changes)


def test_equal_inputs_give_equal_pixels() -> None:
    first, again = (render(sample_identity(5), sample_scene(5, 1), 96) for _ in range(2))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.landmarks, again.landmarks)


def test_a_larger_picture_shows_the_same() -> None:
    person, scene = sample_identity(6), sample_scene(6, 0)
    small, large = render(person, scene, 64, 4), render(person, scene, 128, 4)
    halved = large.image.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(halved - small.image).mean() < 4
    assert np.allclose(large.landmarks, 2 * small.landmarks, atol=1e-3)


def test_identity_has_many_factors_and_people_differ() -> None:
    assert len(fields(Identity)) - 2 >= 14  # without the number and the noun
    people = [sample_identity(i) for i in range(200)]
    assert len({replace(p, number=0) for p in people}) == 200


def test_splits_do_not_share_people() -> None:
    starts = sorted(SPLITS.values())
    assert min(b - a for a, b in pairwise(starts)) >= 100_000


@pytest.mark.parametrize("name", ["skin", "eye_spacing", "hair_style", "hair_colour", "beard", "glasses", "freckles", "nose_width",
                                  "brow_thickness", "mouth_width", "face_width", "jaw", "eye_colour", "mole"])  # fmt: skip
def test_every_identity_factor_changes_the_face(name: str) -> None:
    person = replace(sample_identity(1), hair_style="short", beard="none", glasses="none", freckles=0.0, mole=0, skin=0.3)
    other = {"skin": 0.9, "hair_style": "long", "hair_colour": "white", "beard": "full", "glasses": "round", "freckles": 1.0,
             "eye_colour": "hazel" if person.eye_colour != "hazel" else "blue", "mole": 1}  # fmt: skip
    value = other[name] if name in other else getattr(person, name) * 1.35
    changed = replace(person, **{name: value})
    a, b = (render(p, portrait(p), 128).image.astype(int) for p in (person, changed))
    differs = np.abs(a - b).max(2) > 12
    assert differs.sum() >= 6


def test_every_place_garment_and_hat_is_drawn_differently() -> None:
    person = sample_identity(3)
    for name, options in (("place", PLACES), ("garment", GARMENTS), ("hat", HATS)):
        pictures = [render(person, portrait(person, **{name: option}), 64).image.astype(int) for option in options]
        for i, first in enumerate(pictures):
            for second in pictures[i + 1 :]:
                assert np.abs(first - second).mean() > 0.4


def test_the_shirt_has_its_colour() -> None:
    person = sample_identity(3)
    for name in ("red", "green", "blue", "yellow"):
        image = render(person, portrait(person, garment="t-shirt", garment_colour=name), 128).image
        assert np.abs(image[122, 64].astype(float) - COLOURS[name]).mean() < 40


def test_landmarks_lie_on_the_features() -> None:
    person = replace(sample_identity(2), glasses="none", skin=0.1, hair_style="short")
    scene = portrait(person)
    shot = render(person, scene, 256)
    skin = shot.image[(shot.landmarks[:2].mean(0) + np.array([0, 8])).astype(int)[1], int(shot.landmarks[2, 0])].astype(float)
    for x, y in shot.landmarks[:2].astype(int):
        assert np.abs(shot.image[y - 1 : y + 2, x - 1 : x + 2].astype(float) - skin).mean() > 40  # a pupil, not skin
    assert shot.landmarks[0, 0] < shot.landmarks[1, 0] and shot.landmarks[3, 0] < shot.landmarks[4, 0]


def test_turning_the_head_moves_the_nose_more_than_the_head() -> None:
    person = sample_identity(2)
    left, right = (landmarks(person, portrait(person, yaw=yaw)) for yaw in (-0.4, 0.4))
    assert right[2, 0] - left[2, 0] > 0.5 * HEAD


def test_alignment_brings_landmarks_to_the_template() -> None:
    person = sample_identity(9)
    shot = render(person, portrait(person, turn=0.2, scale=0.9), 256)
    marks = shot.landmarks.astype(np.float64)
    placed = apply(fit_similarity(marks, TEMPLATE), marks)
    assert np.abs(placed - TEMPLATE).mean() < 4 * 6  # drawn faces are not the template's shape
    slope = placed[1] - placed[0]
    assert abs(slope[1] / slope[0]) < 0.12  # the eyes are level
    assert aligned_crop(shot.image, shot.landmarks).shape == (448, 448, 3)


def test_captions_name_what_is_seen() -> None:
    person, scene = (
        sample_identity(4),
        replace(sample_scene(4), garment="suit", garment_colour="orange", hat="top hat", hat_colour="red"),
    )
    assert clothing(scene) == "an orange suit" and headwear(scene) == "a red top hat"
    full = describe(person, scene)
    assert "an orange suit and a red top hat" in full and full.startswith(f"A {person.noun}") and full.endswith(".")


def test_captions_vary_and_never_name_a_hat_that_is_not_there() -> None:
    person, scene = sample_identity(4), replace(sample_scene(4), hat="none")
    sentences = {caption(person, scene, np.random.default_rng(i)) for i in range(50)}
    assert len(sentences) > 30
    assert not any(f" {hat}" in sentence for sentence in sentences for hat in HATS[1:])
    assert not any("  " in s or " ," in s or ",," in s for s in sentences)


def test_portraits_of_the_dataset_wear_no_hat() -> None:
    assert all(scene_of(i, PICTURES - 1).hat == "none" for i in range(20))
    assert any(scene_of(i, 0).hat != "none" for i in range(20))
