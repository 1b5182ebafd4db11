"""The training set as arrays on disk: pictures, face crops, who and where. Made by the renderer, or from a folder of photographs.

Identities of the three splits are disjoint ranges of numbers. Every identity has `PICTURES` pictures, the last `PORTRAITS` of them
without a hat, so that a conditioning face always comes from another picture than the target. Captions are written when a
batch is drawn, so that one picture is described in many ways.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from export.outputs import replacing

from .crops import aligned_crop, encoder_view
from .errors import TrainingError
from .world.canvas import Image
from .world.captions import caption
from .world.people import Identity, Scene, sample_identity, sample_scene
from .world.render import render

PICTURES, PORTRAITS = 4, 2
SPLITS = {"train": 0, "validation": 100_000, "test": 200_000}
"""Split -> number of its first identity."""
VIEW = 112


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

    def caption(self, row: int, r: np.random.Generator) -> str:
        """A sentence about a row."""
        return self.captions[row] if self.captions else caption(self.person(row), self.scene(row), r)

    @property
    def identities(self) -> int:
        return len(self.pictures) // PICTURES

    def require(self, stage: str, people: int) -> None:
        """Raises `TrainingError` where there are fewer people than fill a batch of a stage."""
        if self.identities < people:
            raise TrainingError(f"stage '{stage}': expected at least {people} people, a batch; got {self.identities}; add more")

    def person(self, row: int) -> Identity:
        return sample_identity(SPLITS[self.split] + row // PICTURES)

    def scene(self, row: int) -> Scene:
        return scene_of(SPLITS[self.split] + row // PICTURES, row % PICTURES)


def scene_of(identity: int, picture: int) -> Scene:
    """The scene of one of the pictures of an identity."""
    scene = sample_scene(identity, picture)
    return replace(scene, hat="none") if picture >= PICTURES - PORTRAITS else scene


def _draw(number: int, size: int) -> tuple[Image, Image]:
    person = sample_identity(number)
    pictures, crops = [], []
    for k in range(PICTURES):
        large = render(person, scene_of(number, k), 2 * size)
        pictures.append(cv2.resize(large.image, (size, size), interpolation=cv2.INTER_AREA))
        crops.append(encoder_view(aligned_crop(large.image, large.landmarks), VIEW))
    return np.stack(pictures).astype(np.uint8), np.stack(crops).astype(np.uint8)


def build(folder: Path, split: str, identities: int, size: int, processes: int = 2) -> Pictures:
    """Renders a split into `folder`, or loads what is already there."""
    target = folder / f"{split}-{identities}-{size}.npz"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        first = SPLITS[split]
        with ProcessPoolExecutor(processes) as pool:
            parts = list(pool.map(partial(_draw, size=size), range(first, first + identities), chunksize=8))
        with replacing(target) as partial_file:
            np.savez(partial_file, pictures=np.concatenate([p for p, _ in parts]), crops=np.concatenate([c for _, c in parts]))
    with np.load(target) as arrays:
        return Pictures(split, arrays["pictures"], arrays["crops"])
