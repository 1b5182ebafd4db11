"""Do pictures follow the weights of words, and what stands far back in a long prompt? On the rendered world, by its judges.

Weights: a prompt names two colours, or two garments, for the same thing; the first has the weight. Long prompts: the description that
is asked for comes after sentences on the person's looks that alone fill what the text encoder reads at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from export.checkpoint.committed import weights_folder
from faceclip_serving.contract.variants.variant import Variant
from training.learning.judges import ATTRIBUTES, classify
from training.pictures.dataset import SPLITS
from training.world.captions import article, looks
from training.world.people import Scene, sample_identity

from ..measure.drawing import save
from ..measure.report import write_document
from .judges import Jury, Pictures, read_jury
from .makers import Maker, Settings, exported
from .report import RECORD, strip
from .sweeps import mean_and_error, spread, timed
from .world import Cases, make_world

WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0)
LEAD_SENTENCES = 6
"""Each of at least eight tokens: more than `nano` reads at once, which is 48 beside the face prefix."""


def _colour(scene: Scene, other: str, weight: float) -> str:
    return f"A person wearing a ({scene.garment_colour}:{weight:g}) and {other} {scene.garment}."


def _garment(scene: Scene, other: str, weight: float) -> str:
    return f"A person wearing a {scene.garment_colour} ({scene.garment}:{weight:g}) and {other}."


WORDINGS: Mapping[str, Callable[[Scene, str, float], str]] = {"garment_colour": _colour, "garment": _garment}
"""Attribute -> (what is asked for, another value of it, weight) -> prompt."""


def others_of(attribute: str, cases: Cases) -> list[str]:
    """For each case a value of the attribute that it does not ask for."""
    values = ATTRIBUTES[attribute]
    asked = cases.asked[attribute]
    return [values[(int(value) + 1 + i % (len(values) - 1)) % len(values)] for i, value in enumerate(asked)]


def weighted(
    make: Maker, jury: Jury, cases: Cases, settings: Settings, attribute: str
) -> tuple[list[dict[str, Any]], Pictures]:
    """Per weight: the share of pictures that show the weighted value, and the other one; pictures [weights, cases, ...]."""
    points, rows = [], []
    others = others_of(attribute, cases)
    other_classes = np.array([ATTRIBUTES[attribute].index(each) for each in others])
    for weight in WEIGHTS:
        prompts = [WORDINGS[attribute](scene, other, weight) for scene, other in zip(cases.scenes, others, strict=True)]
        pictures, seconds = timed(make, replace(cases, prompts=tuple(prompts)), settings, f"{attribute} {weight:g}")
        found = classify(jury.classifier, pictures)[attribute]
        share, error = mean_and_error((found == cases.asked[attribute]).astype(np.float32))
        other, other_error = mean_and_error((found == other_classes).astype(np.float32))
        points.append({
            "value": weight, "share": share, "share_error": error, "other_share": other, "other_share_error": other_error,
            "seconds_per_picture": seconds,
        })  # fmt: skip
        rows.append(pictures)
    return points, np.stack(rows)


def lengthened(cases: Cases) -> Cases:
    """The same cases, with their description behind `LEAD_SENTENCES` on the person's looks."""
    people = [sample_identity(SPLITS["test"] + int(who)) for who in cases.who]
    leads = [f"Portrait of {article(person.noun)} with {' and '.join(looks(person))}. " * LEAD_SENTENCES for person in people]
    return replace(cases, prompts=tuple(lead + prompt for lead, prompt in zip(leads, cases.prompts, strict=True)))


def lengths(make: Maker, jury: Jury, cases: Cases, settings: Settings) -> dict[str, dict[str, Any]]:
    """Likeness and text accuracy of short prompts, of long ones, and of long ones cut after the first row of tokens."""
    long = lengthened(cases)
    table = {}
    for name, asked, more in (
        ("short", cases, {}), ("long", long, {}), ("long, cut", long, {"long_prompts": False}),
    ):  # fmt: skip
        pictures, seconds = timed(make, asked, {**settings, **more}, name)
        accuracy, error = mean_and_error(_accuracies(jury, pictures, cases))
        likeness, likeness_error = mean_and_error(jury.similarities(pictures, cases))
        table[name] = {
            "text_accuracy": accuracy, "text_accuracy_error": error,
            "id_similarity": likeness, "id_similarity_error": likeness_error, "seconds_per_picture": seconds,
        }  # fmt: skip
    return table


def _accuracies(jury: Jury, pictures: Pictures, cases: Cases) -> Any:
    """Of each picture, the share of what its prompt says that the classifier finds. Colours of hats have a judge of their own."""
    found, asked = classify(jury.classifier, pictures), cases.asked
    wanted = np.stack([asked[name] for name in ATTRIBUTES])
    hits = np.stack([found[name] for name in ATTRIBUTES]) == wanted
    return ((hits & (wanted >= 0)).sum(0) / (wanted >= 0).sum(0)).astype(np.float32)


def evaluate_prompts(variant: Variant, arguments: argparse.Namespace, output: Path, settings: Settings) -> dict[str, Any]:
    """Everything, with a sheet of pictures per attribute in the folder `output`."""
    folder = weights_folder(variant, arguments.weights)
    assert folder is not None
    world = make_world(arguments.people, arguments.prompts)
    jury = read_jury(folder, world.kept, arguments.people)
    make = exported(variant, arguments.weights, "fp32", arguments.threads)
    document: dict[str, Any] = {
        "variant": variant.name,
        "long_prompts": lengths(make, jury, world.usual, settings),
        "weights": {},
    }
    cases = spread(world.usual, arguments.sweep_cases)
    for attribute in WORDINGS:
        document["weights"][attribute], pictures = weighted(make, jury, cases, settings, attribute)
        save(strip(cases, pictures, WEIGHTS), output / f"weights-{attribute}.png")
    document["protocol"] = {
        "people": arguments.people, "prompts": arguments.prompts, "sweep_cases": len(cases), "settings": dict(settings),
        "wordings": {name: wording(cases.scenes[0], "OTHER", 1.5) for name, wording in WORDINGS.items()},
        "long": lengthened(cases).prompts[0],
    }  # fmt: skip
    write_document(output / RECORD, document)
    return document
