"""The aligned face crop that the encoder sees, made from known landmarks: a least-squares similarity to the five-point template.

The template is the contract of the face encoder (112 x 112, left eye first); crops have `FACE_SIZE` pixels per side. Finding
landmarks in photographs is the server's part, not this module's.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from faceclip_serving.contract.architectures import FACE_SIZE

from .world.canvas import Image

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
TEMPLATE_SIDE = 112


def similarity(source: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.float32]:
    """The 2 x 3 matrix of the scaled rotation that brings points [n, 2] closest to others."""
    x, y = source[:, 0], source[:, 1]
    one, nil = np.ones_like(x), np.zeros_like(x)
    system = np.concatenate([np.stack([x, -y, one, nil], 1), np.stack([y, x, nil, one], 1)])
    a, b, tx, ty = np.linalg.lstsq(system, np.concatenate([target[:, 0], target[:, 1]]), rcond=None)[0]
    return np.array([[a, -b, tx], [b, a, ty]], np.float32)


def aligned_crop(image: Image, landmarks: NDArray[np.float32], size: int = FACE_SIZE) -> Image:
    """RGB [size, size, 3], 0-255; beyond the picture's edge the edge repeats."""
    matrix = similarity(landmarks, TEMPLATE * (size / TEMPLATE_SIDE))
    warped = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)


def encoder_view(crop: Image, size: int) -> Image:
    """A full crop as the face encoder resizes it: bilinear, no anti-aliasing, half-pixel centres."""
    return np.asarray(cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)
