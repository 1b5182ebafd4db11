"""Weighted and long prompts, judged by pictures whose content is known: the renderer's own."""

import numpy as np
import pytest

from benchmarks.quality.edits import WEIGHTS
from benchmarks.quality.judges import read_jury
from benchmarks.quality.wording import lengthened, lengths, weighted
from benchmarks.quality.world import make_world

PEOPLE = 3


@pytest.fixture(scope="module")
def world():
    return make_world(PEOPLE, 2)


@pytest.fixture(scope="module")
def jury(world):
    return read_jury(WEIGHTS, world.kept, PEOPLE)


def test_pictures_of_what_was_asked_for_are_right_however_long_the_prompt(world, jury):
    asked = []

    def make(cases, settings):
        asked.append((cases.prompts, settings))
        return world.drawn.pictures

    found = lengths(make, jury, world.usual, {"seed": 1})
    assert all(each["text_accuracy"] > 0.9 and each["id_similarity"] > 0.3 for each in found.values())
    long = lengthened(world.usual).prompts
    assert [prompts for prompts, _ in asked] == [world.usual.prompts, long, long]
    assert [settings for _, settings in asked] == [{"seed": 1}, {"seed": 1}, {"seed": 1, "long_prompts": False}]


def test_the_share_of_a_colour_is_that_of_pictures_which_show_it(world, jury):
    made = []

    def make(cases, settings):
        made.append(cases.prompts)
        return world.drawn.pictures if len(made) % 2 else world.drawn.pictures[np.roll(np.arange(len(cases)), 1)]

    points, _ = weighted(make, jury, world.usual, {}, "garment_colour")
    assert {point["share"] for point in points[::2]} == {1.0} and all(point["share"] < 1.0 for point in points[1::2])
