"""Where eyes and mouths are: small, hard, and what a viewer looks at first. What the denoiser's last stages are told more of.

They are decided in the middle of the way from noise to picture: latents of renders, made noisy up to time 300 and drawn from there, keep
their faces; from 700 they do not. So half of the times of portraits lie around the middle, an error counts several times as much in
the cells of each picture's own eyes and mouth, and what a guess shows there is compared in pixels as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .. import device
from ..world.people import Identity, Scene
from ..world.render import landmarks
from .dataset import Pictures
from .gatherings import Gatherings

MIDDLE = (250, 750)
"""Times between which half of the rows lie."""
FIRST = (850, 1000)
"""Times at which it is decided where in a wide picture people stand."""
DECODED = 0.5
"""Share of the guesses that are decoded, the least noisy."""
WINDOW = (slice(5, 13), slice(4, 12))
"""Rows and columns of the cells in which a face lies, of 16 x 16: what is decoded."""
_PARTS_WEIGHT = 6.0
"""Of an eye's or a mouth's middle, beside the weight of a person, which is 2 at the head."""
_CELL = 1.1
"""How far from an eye or the line of a mouth it still counts: the deviation of a normal curve, in cells."""
_RARE = 1.0
"""How much more often people with glasses are drawn, and those with a beard."""


@dataclass(frozen=True)
class Details:
    """Of a set of pictures, row by row."""

    parts: NDArray[np.float32]
    """[rows, side, side], 1 in the middle of an eye or a mouth, 0 far away."""
    odds: NDArray[np.float64]
    """[rows], sum 1: how often each is drawn."""

    def weight(self, rows: NDArray[np.int64], person: Tensor) -> Tensor:
        """[rows, 1, side, side], mean 1 in each row. `person`: the weight of cells without regard to where eyes are, [side, side]."""
        weight = person + _PARTS_WEIGHT * device.tensor(self.parts[rows])
        return (weight / weight.mean((1, 2), keepdim=True))[:, None]


def parts(identity: Identity, scene: Scene, side: int) -> NDArray[np.float32]:
    """[side, side]: where the eyes and the mouth of a picture are."""
    spots = landmarks(identity, scene)
    line = spots[3] + np.linspace(0, 1, 5)[:, None] * (spots[4] - spots[3])
    middles = np.concatenate([spots[:2], line]) * side - 0.5
    y, x = np.mgrid[:side, :side]
    far = ((np.stack([x, y], -1)[:, :, None] - middles) ** 2).sum(-1).min(-1)
    return np.asarray(np.exp(-far / (2 * _CELL**2)), np.float32)


def details_of(data: Pictures | Gatherings, side: int) -> Details:
    """Of drawn pictures, with latents of portraits of `side` x `side` cells."""
    people = [data.person(row) for row in range(len(data))]
    rare = [1 + _RARE * (person.glasses != "none") + _RARE * (person.beard not in ("none", "stubble")) for person in people]
    odds = np.array(rare, np.float64)
    return Details(np.stack([parts(person, data.scene(row), side) for row, person in enumerate(people)]), odds / odds.sum())


def middle_times(batch: int) -> Tensor:
    """[batch] of 0 to 999: half spread evenly over all, half over `MIDDLE`, in random order."""
    return spread_times(batch, MIDDLE)


def first_times(batch: int) -> Tensor:
    """[batch] of 0 to 999: a third spread evenly over all, a third over `MIDDLE`, a third over `FIRST`, in random order."""
    return spread_times(batch, MIDDLE, FIRST)


def spread_times(batch: int, *spans: tuple[int, int]) -> Tensor:
    """[batch] of 0 to 999: as many over each span as over all, in random order; evenly, so that steps differ less from each other."""
    counts = [len(range(k, batch, 1 + len(spans))) for k in range(1 + len(spans))]
    times = [
        low + (torch.arange(n) + torch.rand(n)) / n * (high - low)
        for n, (low, high) in zip(counts, ((0, 1000), *spans), strict=True)
        if n
    ]
    return torch.cat(times).long().clamp(max=999)[torch.randperm(batch)]


def enlarged(weight: Tensor, scale: int) -> Tensor:
    """[n, 1, h, w] of cells -> the same of pixels."""
    pixels: Tensor = F.interpolate(weight, scale_factor=scale, mode="bilinear")
    return pixels
