"""The columns of the quality table as pure functions of features, attributes and pictures. Knows no model and no file.

Identity is a cosine between features of a recogniser that the conditioner never saw; text is the share of prompted attributes that a
classifier finds; quality is the kernel inception distance's formula (arXiv 1801.01401) on whatever features are given.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def unit(features: Floats) -> Floats:
    """Rows of length 1."""
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9), np.float32)


def identity_scores(generated: Floats, people: Floats, who: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Cosines of pictures [n, d] with their own person, and with every other: ([n], [n * (persons - 1)]). `people`: [persons, d]."""
    cosine = unit(generated) @ unit(people).T
    own = np.zeros(cosine.shape, bool)
    own[np.arange(len(who)), who] = True
    return cosine[own], cosine[~own]


def verification_auc(same: Floats, other: Floats) -> float:
    """Probability that a cosine with the own person exceeds one with another; ties count half."""
    order = np.sort(other)
    below = np.searchsorted(order, same, "left")
    level = np.searchsorted(order, same, "right") - below
    return float((below + 0.5 * level).mean() / len(order))


def auc_error(auc: float, same: int, other: int) -> float:
    """Standard error of an area under the curve from `same` and `other` cosines, by the formula of Hanley and McNeil (1982)."""
    both_same, both_other = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    squared = auc * (1 - auc) + (same - 1) * (both_same - auc**2) + (other - 1) * (both_other - auc**2)
    return float((max(squared, 0.0) / (same * other)) ** 0.5)


def text_accuracy(
    found: Mapping[str, NDArray[np.int64]], asked: Mapping[str, NDArray[np.int64]], averaged: Collection[str] | None = None
) -> dict[str, float]:
    """Share of pictures that show what was asked, per attribute (asked -1: not mentioned), and as `mean` that of the `averaged`, or all."""
    shares = {}
    for name, wanted in asked.items():
        mentioned = wanted >= 0
        if mentioned.any():
            shares[name] = float((found[name][mentioned] == wanted[mentioned]).mean())
    counted = [share for name, share in shares.items() if averaged is None or name in averaged]
    return {**shares, "mean": float(np.mean(counted))}


def copy_paste_rate(found: NDArray[np.int64], asked: NDArray[np.int64], reference: NDArray[np.int64]) -> float:
    """Of pictures whose reference shows something else than asked, the share that shows the reference's instead."""
    differs = asked != reference
    return float((found[differs] == reference[differs]).mean()) if differs.any() else 0.0


def copy_geo(generated: Floats, references: Floats, people: Floats, who: NDArray[np.int64]) -> float:
    """MultiID-Bench's copy-and-paste measure (arXiv 2510.14975): (angle to the person - angle to the reference) over the angle between
    these two, mean of the cases. -1: the person as they are; 1: the reference itself, with all that is only its own.

    generated, references [n, d]: a case's picture and what the model was shown; people [persons, d].
    """
    true = people[who]

    def angle(a: Floats, b: Floats) -> NDArray[np.float64]:
        return np.asarray(np.arccos(np.clip((unit(a) * unit(b)).sum(1).astype(np.float64), -1, 1)))

    return float(((angle(generated, true) - angle(generated, references)) / np.maximum(angle(true, references), 1e-6)).mean())


def kernel_distance(a: Floats, b: Floats) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / d + 1)^3; 0: the same distribution."""

    def kernel(x: Floats, y: Floats) -> NDArray[np.float64]:
        return np.asarray((x.astype(np.float64) @ y.T.astype(np.float64) / x.shape[1] + 1) ** 3)

    aa, bb, n, m = kernel(a, a), kernel(b, b), len(a), len(b)
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(within - 2 * kernel(a, b).mean())
