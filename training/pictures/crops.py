"""The aligned face crop that the encoder sees, made from known landmarks.

Where the points must lie is the face encoder's contract, `faceclip_serving.face.alignment`. Finding landmarks in photographs is
the server's part, not this module's.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from faceclip_serving.contract.variants.architectures import FACE_SIZE
from faceclip_serving.face.alignment import TEMPLATE, fit_similarity

from ..world.canvas import Image


def aligned_crop(image: Image, landmarks: NDArray[np.float32]) -> Image:
    """RGB [FACE_SIZE, FACE_SIZE, 3], 0-255; beyond the picture's edge the edge repeats. `landmarks`: [5, 2], order of `TEMPLATE`.

    Raises `ValueError` where landmarks fix no similarity.
    """
    matrix = fit_similarity(landmarks.astype(np.float64), TEMPLATE)
    size = (FACE_SIZE, FACE_SIZE)
    warped = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)


def encoder_view(crop: Image, size: int) -> Image:
    """A full crop as the face encoder resizes it: bilinear, no anti-aliasing, half-pixel centres."""
    return np.asarray(cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)
