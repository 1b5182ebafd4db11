"""Several photographs of one person: how much each counts, and whether one of them shows somebody else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..contract.parameters import FACE_IMAGES, IDENTITY
from ..contract.tensors import Array

DIFFERENT_PERSON = 0.25
"""Cosine of identity vectors below which two photographs hardly show one person: angular-margin recognisers place pairs of one
person around 0.5 and above, of two people around 0. An assumption about the published face encoder, not measured on it."""


def face_weights(reports: Sequence[Mapping[str, Any]], weighting: str) -> list[float]:
    """One weight per reference, summing to 1. `weighting`: `equal`, or `quality`: by the detector's score times frontality, so
    that a clear frontal photograph counts more. A face whose quality is unknown (an aligned crop, say) counts as a good one."""
    if weighting == "equal":
        return [1 / len(reports) for _ in reports]
    raw = [_quality(report) for report in reports]
    return [weight / sum(raw) for weight in raw]


def _quality(report: Mapping[str, Any]) -> float:
    values = [1.0 if report.get(key) is None else float(report[key]) for key in ("score", "frontality")]
    return max(0.05, values[0] * values[1])


def averaged(features: Mapping[str, Array], identity: str, weights: Sequence[float]) -> dict[str, Array]:
    """The features of one person from those of several references, [references, ...] each -> [1, ...].

    `identity`: name of the unit vectors, which stay of unit length. One reference is returned unchanged.
    """
    if len(weights) == 1:
        return dict(features)
    mean = {name: np.tensordot(np.asarray(weights, np.float32), array, 1)[None] for name, array in features.items()}
    length = np.linalg.norm(mean[identity], axis=-1, keepdims=True)
    mean[identity] = mean[identity] / np.maximum(length, np.float32(1e-9))
    return mean


def names_of(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each face is called in messages, photographs first. `reports`: as `details.faces` tells them."""
    sealed = ["identity" in report for report in reports]
    photographs, identities = sealed.count(False), sealed.count(True)
    return [f"{FACE_IMAGES.name}[{i}]" for i in range(photographs)] + [
        IDENTITY.name if identities == 1 else f"{IDENTITY.name}[{i}]" for i in range(identities)
    ]


def odd_ones_out(identity: Array, numbers: Sequence[int]) -> list[str]:
    """Warnings about references of one person unlike the others. `identity`: [faces, branches, classes], unit length per branch;
    `numbers`: of the photographs."""
    count = len(identity)
    if count < 2:
        return []
    likeness = np.einsum("ibc,jbc->ij", identity, identity) / identity.shape[1]  # mean cosine over the branches
    others = (likeness - np.eye(count)).sum(axis=1) / (count - 1)
    return [
        f"face_images[{numbers[i]}]: its mean likeness to the other references is {others[i]:.2f}; below {DIFFERENT_PERSON} it may show"
        " a different person"
        for i in np.flatnonzero(others < DIFFERENT_PERSON)
    ]
