"""Several people in one picture: each has a row of the denoiser, and a share of each latent cell.

With f0 the common prompt without a face, fk that of person k and mk their share, what stands for the face in a chain of guidance is
f = f0 + Σk mk·[fk - f0]. So with u + g·[f - u] a cell that is nobody's follows the common prompt, and one that is k's alone is guided to k,
as in a picture of k. Split guidance, intervals and no guidance follow from their own chains.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..contract.tensors import Array
from ..face.frames import Frame
from .guidance import IDENTITY, PREFIXED_TEXT, TEXT, UNCONDITIONAL


def person(number: int) -> str:
    """What the row of a person is called among branches."""
    return f"person {number}"


def plain_text_of(number: int) -> str:
    """The same of their prompt without a face: what `blend_weight` mixes them with."""
    return f"{PREFIXED_TEXT} {number}"


def rows_of(branches: tuple[str, ...], people: int) -> tuple[str, ...]:
    """The rows of the denoiser that a chain's branches need; without several people these are the branches."""
    if not people or IDENTITY not in branches:
        return branches
    first = (UNCONDITIONAL,) if UNCONDITIONAL in branches else ()
    return (*first, TEXT, *(person(number) for number in range(people)))


@dataclass(frozen=True, eq=False)
class People:
    """Where the people of one request are. `shares`: FP32 [people, 1, height, width] of latent cells, weights among them."""

    shares: Array

    def rows_of(self, branches: tuple[str, ...]) -> tuple[str, ...]:
        return rows_of(branches, len(self.shares))

    def seen(self, frame: Frame, scale: int) -> People:
        """Where they are in a part of the picture that is drawn by itself. `scale`: pixels of a cell's side."""
        height, width = (side * scale for side in self.shares.shape[2:])
        (left, top, right, bottom), (x, y, x_end, y_end) = frame.box, frame.place
        shares = []
        for share in self.shares[:, 0]:
            part = cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR)[top:bottom, left:right]
            placed = cv2.resize(part, (x_end - x, y_end - y), interpolation=cv2.INTER_LINEAR)
            whole = np.pad(placed, ((y, frame.height - y_end), (x, frame.width - x_end)), mode="edge")
            shares.append(cv2.resize(whole, (frame.width // scale, frame.height // scale), interpolation=cv2.INTER_AREA))
        return People(np.stack(shares)[:, None])

    def of_branches(self, branches: tuple[str, ...], predictions: Array) -> Array:
        """Predictions of the rows [rows, channels, height, width] -> of the branches."""
        if IDENTITY not in branches:
            return predictions
        text = predictions[-len(self.shares) - 1]
        together = text + (self.shares * (predictions[-len(self.shares) :] - text)).sum(0)
        of = {UNCONDITIONAL: predictions[0], TEXT: text, IDENTITY: together}
        return np.stack([of[branch] for branch in branches])
