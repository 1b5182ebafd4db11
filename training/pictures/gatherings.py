"""Pictures that are wider than a portrait: people side by side in one place, and one person with more of the place around them.

Rows are the people, not the pictures: each is learnt from by themself, with their own face and a caption of their own, as a request for
several people gives them. Half of the pictures dress all alike, as one prompt for all of them asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from export.outputs import replacing

from ..world.canvas import Image
from ..world.captions import caption
from ..world.people import Identity, Scene, generator, sample_identity
from ..world.render import Standing, render_together
from .dataset import PICTURES, frontal_scene

_ALIKE = 0.5
"""Share of the pictures in which all wear and look the same."""


@dataclass(frozen=True)
class Formation:
    """How people stand in a picture."""

    across: float
    """Width of the picture, of its height."""
    lefts: tuple[float, ...]
    """Where the portrait of each would begin, from the left, of the height."""


PAIR, THREE, ALONE = Formation(2.0, (0.0, 1.0)), Formation(3.0, (0.0, 1.0, 2.0)), Formation(1.5, (0.25,))


@dataclass(frozen=True)
class Gatherings:
    """Row i shows person `i % people` of picture `i // people`. The people are those of the split `train`."""

    formation: Formation
    pictures: NDArray[np.uint8]
    """[n, size, across * size, 3] RGB."""
    identities: int
    """Of how many people those in the pictures are drawn."""

    @property
    def people(self) -> int:
        return len(self.formation.lefts)

    def __len__(self) -> int:
        return len(self.pictures) * self.people

    @cached_property
    def standing(self) -> Sequence[Standing]:
        """Row by row."""
        return [each for picture in range(len(self.pictures)) for each in gathered(self.formation, picture, self.identities)]

    def person(self, row: int) -> Identity:
        return self.standing[row].identity

    def scene(self, row: int) -> Scene:
        return self.standing[row].scene

    def left(self, row: int) -> float:
        """Where the portrait of a row begins, of the picture's height."""
        return self.standing[row].left

    def caption(self, row: int, r: np.random.Generator) -> str:
        """A sentence about a row."""
        return caption(self.person(row), self.scene(row), r)

    def faces_of(self, row: int) -> Sequence[int]:
        """Rows of the faces of series `usual` that show the person of a row."""
        first = self.person(row).number * PICTURES
        return range(first, first + PICTURES)


def gathered(formation: Formation, picture: int, identities: int) -> list[Standing]:
    """Who is in a picture, how they look there, and where they stand: the same for ever."""
    r = generator("gathering", formation.across, picture)
    numbers = r.choice(identities, len(formation.lefts), replace=False)
    scenes = [frontal_scene("gathering", formation.across, picture, k) for k in range(len(numbers))]
    first, alike = scenes[0], bool(r.uniform() < _ALIKE)
    shared = ["place", "time", "light", "detail"]
    if alike:
        shared += ["garment", "garment_colour", "hat", "hat_colour", "expression"]
    common = {name: getattr(first, name) for name in shared}
    return [
        Standing(sample_identity(int(number)), replace(scene, **common), left)
        for number, scene, left in zip(numbers, scenes, formation.lefts, strict=True)
    ]


def _draw(picture: int, formation: Formation, identities: int, size: int) -> Image:
    large = render_together(gathered(formation, picture, identities), formation.across, 2 * size).image
    return np.asarray(cv2.resize(large, (large.shape[1] // 2, size), interpolation=cv2.INTER_AREA), np.uint8)


def build_gatherings(
    folder: Path, formation: Formation, pictures: int, identities: int, size: int, processes: int = 2
) -> Gatherings:
    """Draws them into `folder`, or loads what is already there."""
    target = folder / f"gatherings-{formation.across}-{pictures}-{identities}-{size}.npz"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draw = partial(_draw, formation=formation, identities=identities, size=size)
        with ProcessPoolExecutor(processes) as pool:
            drawn = np.stack(list(pool.map(draw, range(pictures), chunksize=8)))
        with replacing(target) as partial_file:
            np.savez(partial_file, pictures=drawn)
    with np.load(target) as arrays:
        return Gatherings(formation, arrays["pictures"], identities)
