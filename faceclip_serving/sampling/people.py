"""Several people in one picture: each has a row of the denoiser, and a share of each latent cell.

With f0 the common prompt without a face, fk that of person k and mk their share, what stands for the face in a chain of guidance is
f = f0 + Σk mk·[fk - f0]. So with u + g·[f - u] a cell that is nobody's follows the common prompt, and one that is k's alone is guided to k,
as in a picture of k. Split guidance, intervals and no guidance follow from their own chains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..contract.tensors import Array
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

    def of_branches(self, branches: tuple[str, ...], predictions: Array) -> Array:
        """Predictions of the rows [rows, channels, height, width] -> of the branches."""
        if IDENTITY not in branches:
            return predictions
        text = predictions[-len(self.shares) - 1]
        together = text + (self.shares * (predictions[-len(self.shares) :] - text)).sum(0)
        of = {UNCONDITIONAL: predictions[0], TEXT: text, IDENTITY: together}
        return np.stack([of[branch] for branch in branches])
