"""How far a face is from those that the face encoder's model has learnt: whoever sends one that lies beyond them is warned.

Weights may bring a file that says how the patches of learnt faces are spread. A face is as far as the geometric mean of two distances:
that of its patches' mean, and that of the patch that is farthest from what is usual in its place. Each is in standard deviations, as a
root mean square over the directions in which learnt faces differ, so that a learnt face is about 1 away, and what learnt faces hardly
ever do counts most. The class token would not do: the encoder makes one of a learnt face of whatever it sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from ..contract.errors import UserError
from ..contract.names import STATISTICS_FILE
from ..contract.tensors import Array
from ..contract.variants.variant import Variant

FEATURE = "patch_token"
"""The feature of faces that statistics are of: [faces, ..., patches, width]."""


@dataclass(frozen=True, eq=False)
class FaceStatistics:
    """What learnt faces are like, FP32. Factors turn a difference into standard deviations, each divided by the root of `width`."""

    mean: Array
    """Of each patch, [patches, width]."""
    factors: Array
    """Of a patch's difference from `mean`, [width, width]."""
    factors_of_mean: Array
    """Of the same for the mean over all patches, [width, width]."""
    bound: float
    """Hardly a learnt face is farther than that."""

    def distances(self, features: Array) -> Array:
        """Of each face, from `FEATURE` [faces, patches, width] or [faces, branches, patches, width]: [faces]; of several branches the
        largest."""
        apart = features.reshape(len(features), -1, *self.mean.shape) - self.mean
        farthest = ((apart @ self.factors) ** 2).sum(-1).max(-1)
        of_mean = ((apart.mean(-2) @ self.factors_of_mean) ** 2).sum(-1)
        return np.asarray(((farthest * of_mean) ** 0.25).max(-1))

    def warnings(self, features: Array, names: Sequence[str]) -> list[str]:
        """About faces that are farther than `bound`; `names`: what each was sent as."""
        return [
            f"{name}: the face is unlike all that this model has learnt, {distance:.1f} from them where hardly one is farther than"
            f" {self.bound:.1f}; expect a drawn person of its type, not a likeness"
            for name, distance in zip(names, self.distances(features), strict=True)
            if distance > self.bound
        ]


def read_statistics(folder: Path, variant: Variant) -> FaceStatistics | None:
    """Those of a folder; None: it has none. Raises `UserError` for a file that holds something else, or is of another variant's faces."""
    file = folder / STATISTICS_FILE
    if not file.is_file():
        return None
    try:
        tensors = {name: tensor.astype(np.float32) for name, tensor in load_file(file).items()}
        bound = float(tensors.pop("bound").item())
        found = FaceStatistics(**tensors, bound=bound)
        patches, width = (int(axis) for axis in next(each.axes for each in variant.face_features if each.name == FEATURE)[-2:])
        shapes = {"mean": (patches, width), "factors": (width, width), "factors_of_mean": (width, width)}
        for name, shape in shapes.items():
            if tensors[name].shape != shape or not np.isfinite(tensors[name]).all():
                raise ValueError(f"{name}: expected finite numbers {list(shape)}, got {list(tensors[name].shape)}")
        if not 0 < bound < math.inf:
            raise ValueError(f"bound: expected a finite number above 0, got {bound}")
        return found
    except Exception as error:  # noqa: BLE001 - safetensors' own errors, missing and unknown tensors
        raise UserError(
            f"{file}: expected mean, factors, factors_of_mean and bound, as `python -m training weights` writes them; {error}"
        ) from None
