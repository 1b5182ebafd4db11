"""What the denoiser's last stage is told of eyes and mouths: where they are, when they are decided, and what of a guess is decoded."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from training.learning.diffusion import LATENT_SIDE, person_weight
from training.pictures.dataset import FRONTAL, PICTURES, Pictures, scene_of
from training.pictures.details import FIRST, MIDDLE, WINDOW, details_of, first_times, middle_times, parts
from training.world.people import BEARDS, EXPRESSIONS, GLASSES, sample_identity
from training.world.render import landmarks


@pytest.fixture(scope="module")
def data() -> Pictures:
    pictures = np.zeros((40 * PICTURES, 1, 1, 3), np.uint8)
    return Pictures("train", pictures, pictures, series=FRONTAL)


def test_eyes_and_mouth_of_every_picture_have_the_most_weight_and_lie_in_the_window(data: Pictures) -> None:
    details = details_of(data, LATENT_SIDE)
    rows = np.arange(len(data.pictures))
    weight = details.weight(rows, person_weight(LATENT_SIDE))
    assert weight.shape == (len(rows), 1, LATENT_SIDE, LATENT_SIDE)
    torch.testing.assert_close(weight.mean((1, 2, 3)), torch.ones(len(rows)))
    height, width = WINDOW
    for row in rows:
        spots = landmarks(data.person(row), data.scene(row)) * LATENT_SIDE
        for x, y in spots[[0, 1, 3, 4]].astype(int):
            assert weight[row, 0, y, x] > 3 * weight[row, 0].median()
            assert height.start <= y < height.stop and width.start <= x < width.stop


def test_parts_follow_the_head() -> None:
    person, scene = sample_identity(3), scene_of(3, 0, FRONTAL)
    moved = parts(person, replace(scene, x=scene.x + 2 / LATENT_SIDE), LATENT_SIDE)
    assert np.allclose(moved[:, 2:], parts(person, scene, LATENT_SIDE)[:, :-2], atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_half_of_the_times_lie_around_the_middle_and_half_are_spread_over_all(batch: int) -> None:
    times = torch.cat([middle_times(batch) for _ in range(4000 // batch)])
    assert times.min() >= 0 and times.max() <= 999
    if batch > 1:
        inside = ((times >= MIDDLE[0]) & (times < MIDDLE[1])).double().mean()
        assert abs(float(inside) - 0.75) < 0.12
        assert times.min() < 50 and times.max() > 950


def test_a_third_of_a_wide_pictures_times_are_the_first() -> None:
    times = torch.cat([first_times(12) for _ in range(300)])
    assert times.min() >= 0 and times.max() <= 999
    low, high = FIRST
    share = ((times >= low) & (times < high)).double().mean()
    assert abs(float(share) - (1 + (high - low) / 1000) / 3) < 0.03


def test_glasses_and_beards_are_drawn_more_often(data: Pictures) -> None:
    odds = details_of(data, LATENT_SIDE).odds
    assert odds.sum() == pytest.approx(1)
    people = [data.person(row) for row in range(len(odds))]
    plain = [o for o, p in zip(odds, people, strict=True) if p.glasses == GLASSES[0] and p.beard == BEARDS[0]]
    both = [o for o, p in zip(odds, people, strict=True) if p.glasses != GLASSES[0] and p.beard in BEARDS[2:]]
    assert plain and both and min(both) > 2 * max(plain)


def test_frontal_heads_look_straight_three_times_in_four_and_thin_lips_are_the_most_frequent() -> None:
    scenes = [scene_of(i, k, FRONTAL) for i in range(200) for k in range(PICTURES)]
    straight = [s for s in scenes if not any((s.yaw, s.pitch, s.turn, s.x, s.y)) and s.scale == 1]
    assert len(straight) == 0.75 * len(scenes)
    found = Counter(s.expression for s in scenes)
    assert set(found) == set(EXPRESSIONS) and found.most_common(1)[0][0] == "smiling"
    assert found["smiling"] + found["neutral"] + found["sad"] > 0.7 * len(scenes)
