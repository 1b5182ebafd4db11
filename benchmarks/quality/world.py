"""The test set of the rendered world: people that no training saw, in scenes that were never drawn for them.

A case is a prompt, what it asks for, and references of one person. Some pictures of each person are kept from the model: they are
who the person is, to the judges. Real photographs are evaluated by `photographs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from faceclip_serving.face.detectors import Box, Face
from training.learning.judges import JUDGED, class_of
from training.pictures.crops import aligned_crop
from training.pictures.dataset import PICTURES, SPLITS, scene_of
from training.world.captions import describe
from training.world.people import INDOORS, Identity, Scene, generator, sample_identity, sample_scene
from training.world.render import landmarks, render

SIDE = 128
REFERENCES = 4
"""References of a person with a turned head; as many as a request may bring."""


@dataclass(frozen=True)
class Shots:
    """Pictures of people, with the aligned crops that a request sends."""

    scenes: tuple[Scene, ...]
    pictures: NDArray[np.uint8]
    """[n, SIDE, SIDE, 3] RGB."""
    crops: NDArray[np.uint8]
    """[n, 448, 448, 3] RGB."""


def shoot(wanted: Sequence[tuple[Identity, Scene]]) -> Shots:
    """Draws people in scenes, exactly as the training set is drawn."""
    pictures, crops = [], []
    for person, scene in wanted:
        large = render(person, scene, 2 * SIDE)
        pictures.append(cv2.resize(large.image, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
        crops.append(aligned_crop(large.image, large.landmarks))
    return Shots(tuple(scene for _, scene in wanted), np.stack(pictures).astype(np.uint8), np.stack(crops).astype(np.uint8))


def drawn_face(person: Identity, scene: Scene) -> Face:
    """The face in a person's picture of `SIDE` pixels, by the points that the renderer knows, as a detector gives it."""
    return Face(Box(0, 0, 1, 1), np.asarray(landmarks(person, scene) * SIDE, np.float64), 1.0)


@dataclass(frozen=True)
class Cases:
    """Test cases; case i asks by `prompts[i]` for person `who[i]`, and starts from the noise of `seeds[i]`."""

    who: NDArray[np.int64]
    prompts: tuple[str, ...]
    scenes: tuple[Scene, ...]
    """What the prompts describe."""
    references: tuple[tuple[int, ...], ...]
    """Rows of `shots` that are shown to the model, per case; none: no face."""
    shots: Shots
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    def only(self, rows: Sequence[int]) -> Cases:
        """Some of the cases, with the noise that they have here."""
        chosen = [int(row) for row in rows]
        return replace(
            self,
            who=self.who[chosen],
            prompts=tuple(self.prompts[row] for row in chosen),
            scenes=tuple(self.scenes[row] for row in chosen),
            references=tuple(self.references[row] for row in chosen),
            seeds=tuple(self.seeds[row] for row in chosen),
        )

    def faceless(self) -> Cases:
        return replace(self, references=tuple(() for _ in self.prompts))

    @property
    def asked(self) -> dict[str, NDArray[np.int64]]:
        """Attribute -> class that the prompt asks for; -1 where it does not say."""
        return {name: np.array([_class_of(s, name) for s in self.scenes], np.int64) for name in JUDGED}

    @property
    def shown(self) -> dict[str, NDArray[np.int64]]:
        """Attribute -> class that the first reference shows; -1 without one."""
        first = [self.shots.scenes[rows[0]] if rows else None for rows in self.references]
        return {name: np.array([-1 if s is None else class_of(s, name) for s in first], np.int64) for name in JUDGED}


def _class_of(scene: Scene, attribute: str) -> int:
    """Soft light and day are what a prompt leaves unsaid; indoors there is no hour."""
    unsaid = {"light": scene.light == "soft", "time": scene.time == "day" or scene.place in INDOORS}
    return -1 if unsaid.get(attribute, False) else class_of(scene, attribute)


@dataclass(frozen=True)
class World:
    """Everything that an evaluation is made from."""

    kept: Shots
    """`PICTURES - 1` pictures of each person, in the order of the people, that no model is shown."""
    usual: Cases
    """One reference each: a picture without a hat, its pose as in the training set."""
    turned: Cases
    """The same prompts and noise; `REFERENCES` references each, every one with the head turned far to a side, in an order that
    differs between a person's prompts, so that "the first one" is no particular picture."""
    drawn: Shots
    """What the renderer itself draws for the prompts of the cases: nothing can be better."""


def make_world(people: int, prompts: int) -> World:
    """`prompts` new scenes for each of `people` test identities."""
    persons = [sample_identity(SPLITS["test"] + i) for i in range(people)]
    who = np.repeat(np.arange(people), prompts)
    scenes = tuple(sample_scene("evaluation", int(p), k % prompts) for k, p in enumerate(who))
    usual = shoot([(person, scene_of(person.number, PICTURES - 1)) for person in persons])
    turned = shoot([(person, turned_scene(person.number, k)) for person in persons for k in range(REFERENCES)])
    cases = Cases(
        who,
        tuple(describe(persons[p], scene) for p, scene in zip(who, scenes, strict=True)),
        scenes,
        tuple((int(p),) for p in who),
        usual,
        tuple(range(len(who))),
    )
    rotated = tuple(tuple(int(p) * REFERENCES + (i + k) % REFERENCES for k in range(REFERENCES)) for i, p in enumerate(who))
    return World(
        kept=shoot([(person, scene_of(person.number, k)) for person in persons for k in range(PICTURES - 1)]),
        usual=cases,
        turned=replace(cases, references=rotated, shots=turned),
        drawn=shoot([(persons[p], scene) for p, scene in zip(who, scenes, strict=True)]),
    )


def turned_scene(person: int, number: int) -> Scene:
    """A reference with the head turned as far as the world knows, to alternating sides."""
    r, scene = generator("turned", person, number), sample_scene("turned", person, number)
    side = -1.0 if number % 2 else 1.0
    return replace(scene, hat="none", yaw=side * float(r.uniform(0.35, 0.5)), pitch=float(r.uniform(-0.18, 0.18)))
