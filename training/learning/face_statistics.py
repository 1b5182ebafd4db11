"""How the faces of training people are spread, as the served face encoder sees them: by that, a server warns of others.

See `faceclip_serving.face.familiarity` for what is made of it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.networks.faceclip.face_vit import FaceTransformer
from faceclip_serving.face.familiarity import FaceStatistics

from .. import device
from .identity import face_features

WITHIN = 0.996
"""Share of the training pictures whose distance is within the bound."""
_LEAST = 1e-4
"""Smallest variance that counts, as a share of the largest: below it there are rounding and directions that the network does not use."""
_AT_ONCE = 500


def face_statistics(vit: FaceTransformer, crops: NDArray[np.uint8]) -> dict[str, Tensor]:
    """The tensors of a file of statistics, by name, from crops [n, VIEW, VIEW, 3] 0-255 of training people."""
    patches = device.array(face_features(vit, crops)[1])
    parts = [patches[i : i + _AT_ONCE] for i in range(0, len(patches), _AT_ONCE)]
    mean = np.asarray(sum(part.sum(0, dtype=np.float64) for part in parts) / len(patches), np.float32)
    width = mean.shape[-1]
    of_patch, of_mean = np.zeros((width, width)), np.zeros((width, width))
    for part in parts:
        apart = part.astype(np.float32) - mean
        rows = apart.reshape(-1, width)
        of_patch += rows.T @ rows
        of_mean += apart.mean(1).T @ apart.mean(1)
    factors, factors_of_mean = _factors(of_patch / (len(patches) * mean.shape[0])), _factors(of_mean / len(patches))
    found = FaceStatistics(mean, factors, factors_of_mean, 0.0)
    distances = np.concatenate([found.distances(part.astype(np.float32)) for part in parts])
    tensors = {"mean": mean, "factors": factors, "factors_of_mean": factors_of_mean, "bound": np.quantile(distances, WITHIN)}
    return {name: torch.tensor(np.asarray(array, np.float32), device="cpu") for name, array in tensors.items()}


def _factors(covariance: NDArray[np.float64]) -> NDArray[np.float32]:
    """Of differences: how many standard deviations they are, each divided by the root of the width."""
    variances, directions = np.linalg.eigh(covariance)
    spread = np.sqrt(np.maximum(variances, _LEAST * variances[-1]))
    return np.asarray(directions / spread / np.sqrt(len(spread)), np.float32)
