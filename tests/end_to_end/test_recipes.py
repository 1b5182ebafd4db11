"""Recipes that say that nano was tried: each option is drawn by it, and a judge of the project sees what was asked for."""

import numpy as np
import pytest

from examples.recipes import PORTRAIT, drawn
from export.paths import WEIGHTS
from faceclip.recipes import load
from faceclip_serving.contract.variants.sdxl import NANO
from training.learning.judges import ATTRIBUTES, classify
from training.run.weights import read_judges

TRIED = [name for name, recipe in load().items() if NANO.name in recipe.tried]
SEEN = {"place": "place", "garment": "garment", "colour": "garment_colour"}
"""Choice -> the judge's attribute, where its options are among the judge's values."""


@pytest.mark.proof
@pytest.mark.parametrize("name", TRIED)
def test_nano_draws_every_option(nano, name):
    _, pipe = nano
    pictures = drawn(pipe, name, PORTRAIT, aligned=True)
    options = [option for choice in load()[name].choices for option in choice.options]
    assert len(pictures) == len(options) - len(load()[name].choices) + 1
    stack = np.stack(list(pictures.values()))
    assert len(np.unique(stack.reshape(len(stack), -1), axis=0)) == len(stack)
    _, classifier = read_judges(WEIGHTS / NANO.name)
    found = classify(classifier, stack)
    asked = []
    for row, label in enumerate(pictures):
        choice, option = label.split(": ")
        attribute = SEEN.get(choice)
        if attribute in ATTRIBUTES and option in ATTRIBUTES[attribute]:
            asked.append(ATTRIBUTES[attribute][int(found[attribute][row])] == option)
    assert len(asked) >= 6
    assert sum(asked) / len(asked) >= 0.8, dict(zip(pictures, asked, strict=False))
