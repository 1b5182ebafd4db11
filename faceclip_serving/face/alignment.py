"""The aligned crop: where a face's points must lie, the similarity that puts them there, and resampling without aliasing.

Knows coordinates and pixels; does not know how faces are found. Points are (x, y), with (0, 0) the centre of the first pixel,
as OpenCV's warps have it. A similarity is a [2, 3] matrix: turn, scale and move, never a reflection.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from ..contract.variants.architectures import FACE_SIZE
from .photos import Pixels

Points = NDArray[np.float64]
"""[n, 2], (x, y) in pixels."""
Similarity = NDArray[np.float64]
"""[2, 3], maps points as `apply` does."""

TEMPLATE: Points = (FACE_SIZE / 112) * np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""ArcFace's five points in the aligned crop: eyes, nose tip, corners of the mouth; of a pair, the left one as seen first."""


def fit_similarity(source: Points, target: Points) -> Similarity:
    """The similarity that takes `source` to `target` ([n, 2] each, n >= 2) with the least sum of squared distances.

    In the plane this problem (Umeyama 1991) is a linear regression of complex numbers, w = a z + b, which leaves no room for a
    reflection. All points count: an estimator that drops outliers turns faces whose mouth it takes for one.
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2 or len(source) < 2:
        raise ValueError(f"landmarks: expected two equal shapes [n, 2], n >= 2, got {list(source.shape)}, {list(target.shape)}")
    z, w = source @ [1, 1j], target @ [1, 1j]
    spread = z - z.mean()
    weight = float(np.vdot(spread, spread).real)
    if not np.isfinite(w).all() or not math.isfinite(weight) or weight < 1e-9:
        raise ValueError(f"landmarks: expected finite points that differ from each other, got {source.tolist()}")
    a = np.vdot(spread, w) / weight
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def apply(similarity: Similarity, points: Points) -> Points:
    """The points ([n, 2]) moved."""
    moved: Points = points @ similarity[:, :2].T + similarity[:, 2]
    return moved


def invert(similarity: Similarity) -> Similarity:
    return np.asarray(cv2.invertAffineTransform(similarity), np.float64)


def scale_of(similarity: Similarity) -> float:
    """Target pixels per source pixel."""
    return math.hypot(similarity[0, 0], similarity[1, 0])


def resample(image: Pixels, similarity: Similarity, width: int, height: int, border: int = cv2.BORDER_CONSTANT) -> Pixels:
    """`image` seen through `similarity`: [height, width, 3]. Outside of it: black, or what OpenCV's `border` says.

    Where that makes the picture smaller, the region needed is first averaged over whole blocks, then drawn at twice the size
    and averaged again, so that every pixel of the source counts and fine patterns do not alias.
    """
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    needed = apply(invert(similarity), corners)
    block = max(math.floor(1 / scale_of(similarity)), 1)
    margin = 3 * block  # for the interpolation's reach
    left, top = (max(math.floor(low) - margin, 0) for low in needed.min(axis=0))
    right, bottom = (max(math.ceil(high) + margin, 0) for high in needed.max(axis=0))
    region = image[top:bottom, left:right]
    block = min(block, *region.shape[:2])
    if block == 0:
        return np.zeros((height, width, 3), np.uint8)
    columns, rows = region.shape[1] // block, region.shape[0] // block
    region = region[: rows * block, : columns * block]
    if block > 1:
        region = cv2.resize(region, (columns, rows), interpolation=cv2.INTER_AREA)
    fine = 2 if scale_of(similarity) < 0.95 else 1  # near 1 nothing aliases, and the detour would only soften
    # Pixel centres: block pixel p covers source pixels around left + block * (p + 1/2) - 1/2; likewise for the finer target.
    center = [left + (block - 1) / 2, top + (block - 1) / 2]
    moved = fine * apply(similarity, np.array([center]))[0] + (fine - 1) / 2
    matrix = np.column_stack([similarity[:, :2] * block * fine, moved])
    drawn = cv2.warpAffine(region, matrix, (width * fine, height * fine), flags=cv2.INTER_CUBIC, borderMode=border)
    if fine > 1:
        drawn = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(drawn, np.uint8)


def cut_face(image: Pixels, landmarks: Points) -> Pixels:
    """The aligned crop, [448, 448, 3], of the face whose five points ([5, 2], order of `TEMPLATE`) are given.

    Black where the crop leaves the photograph: recognisers of ArcFace's kind are trained on crops made so.
    """
    return resample(image, fit_similarity(landmarks, TEMPLATE), FACE_SIZE, FACE_SIZE)


def align_face(image: Pixels, landmarks: Points) -> NDArray[np.float32]:
    """The same as the network takes it, [3, 448, 448] RGB in [0, 1]."""
    return as_planes(cut_face(image, landmarks))


def as_planes(image: Pixels) -> NDArray[np.float32]:
    """[height, width, 3] in 0..255 -> [3, height, width] in [0, 1]."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / np.float32(255)


def as_pixels(planes: NDArray[np.float32]) -> Pixels:
    """[3, height, width] in [0, 1] -> [height, width, 3] in 0..255."""
    return np.ascontiguousarray((planes * 255).round().astype(np.uint8).transpose(1, 2, 0))


def share_outside(similarity: Similarity, width: int, height: int) -> float:
    """How much of the aligned crop lies outside a photograph of `width` x `height` pixels, in [0, 1]."""
    steps = (np.arange(64) + 0.5) * FACE_SIZE / 64 - 0.5
    x, y = apply(invert(similarity), np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)).T
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    return 1 - float(inside.mean())
