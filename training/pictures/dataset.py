"""The training set as arrays on disk: pictures, face crops, who and where. Made by the renderer, or from a folder of photographs.

Identities of the three splits are disjoint ranges of numbers. Every identity has `PICTURES` pictures, the last `PORTRAITS` of them
without a hat, so that a conditioning face always comes from another picture than the target. Captions are written when a
batch is drawn, so that one picture is described in many ways.

The series `usual` is drawn as `sample_scene` has it. In `frontal`, from which the denoiser learns, three heads of four look straight out of
the middle, so that where a mouth lies follows from whose it is: a prompt can ask for no turn of the head. Half wear a hat, and thin lips,
the hardest, are the most frequent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from export.outputs import replacing

from ..errors import TrainingError
from ..world.canvas import Image
from ..world.captions import caption
from ..world.people import HATS, Identity, Scene, generator, sample_identity, sample_scene
from ..world.render import render
from .crops import aligned_crop, encoder_view

PICTURES, PORTRAITS = 4, 2
SPLITS = {"train": 0, "validation": 100_000, "test": 200_000}
"""Split -> number of its first identity."""
VIEW = 112
USUAL, FRONTAL = "usual", "frontal"
_FRONTAL_HATS = 0.5
_FRONTAL_EXPRESSIONS: Mapping[str, float] = {"neutral": 0.22, "smiling": 0.4, "laughing": 0.1, "sad": 0.18, "surprised": 0.1}


@dataclass(frozen=True)
class Pictures:
    """Rows of one split; row i shows identity `i // PICTURES` of the split."""

    split: str
    pictures: NDArray[np.uint8]
    """[rows, size, size, 3] RGB."""
    crops: NDArray[np.uint8]
    """[rows, VIEW, VIEW, 3] RGB, aligned faces as the encoder resizes them."""

    captions: tuple[str, ...] = ()
    """Of photographs: one per row; empty: captions follow from the scenes."""
    series: str = USUAL

    def caption(self, row: int, r: np.random.Generator) -> str:
        """A sentence about a row."""
        return self.captions[row] if self.captions else caption(self.person(row), self.scene(row), r)

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def identities(self) -> int:
        return len(self.pictures) // PICTURES

    def faces_of(self, row: int) -> Sequence[int]:
        """Rows that show the person of a row in another picture."""
        first = row - row % PICTURES
        return [k for k in range(first, first + PICTURES) if k != row]

    def require(self, stage: str, people: int) -> None:
        """Raises `TrainingError` where there are fewer people than fill a batch of a stage."""
        if self.identities < people:
            raise TrainingError(f"stage '{stage}': expected at least {people} people, a batch; got {self.identities}; add more")

    def person(self, row: int) -> Identity:
        return sample_identity(SPLITS[self.split] + row // PICTURES)

    def scene(self, row: int) -> Scene:
        return scene_of(SPLITS[self.split] + row // PICTURES, row % PICTURES, self.series)


def scene_of(identity: int, picture: int, series: str = USUAL) -> Scene:
    """The scene of one of the pictures of an identity."""
    if series == FRONTAL:
        return frontal_scene(FRONTAL, identity, picture, turned=picture == PICTURES - 1)
    scene = sample_scene(identity, picture)
    return replace(scene, hat="none") if picture >= PICTURES - PORTRAITS else scene


def frontal_scene(*key: object, turned: bool = False) -> Scene:
    """One of the scenes of `FRONTAL`. `turned`: the head, at random, instead of straight out of the middle."""
    r = generator(*key)
    hat = str(r.choice(HATS[1:])) if r.uniform() < _FRONTAL_HATS else "none"
    expression = str(r.choice(list(_FRONTAL_EXPRESSIONS), p=list(_FRONTAL_EXPRESSIONS.values())))
    return replace(sample_scene(*key, pose=float(r.uniform()) if turned else 0.0), hat=hat, expression=expression)


def _draw(number: int, size: int, series: str) -> tuple[Image, Image]:
    person = sample_identity(number)
    pictures, crops = [], []
    for k in range(PICTURES):
        large = render(person, scene_of(number, k, series), 2 * size)
        pictures.append(cv2.resize(large.image, (size, size), interpolation=cv2.INTER_AREA))
        crops.append(encoder_view(aligned_crop(large.image, large.landmarks), VIEW))
    return np.stack(pictures).astype(np.uint8), np.stack(crops).astype(np.uint8)


def build(folder: Path, split: str, identities: int, size: int, processes: int = 2, series: str = USUAL) -> Pictures:
    """Renders a split into `folder`, or loads what is already there."""
    kind = "" if series == USUAL else f"{series}-"
    target = folder / f"{kind}{split}-{identities}-{size}.npz"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        first = SPLITS[split]
        with ProcessPoolExecutor(processes) as pool:
            parts = list(pool.map(partial(_draw, size=size, series=series), range(first, first + identities), chunksize=8))
        with replacing(target) as partial_file:
            np.savez(partial_file, pictures=np.concatenate([p for p, _ in parts]), crops=np.concatenate([c for _, c in parts]))
    with np.load(target) as arrays:
        return Pictures(split, arrays["pictures"], arrays["crops"], series=series)
