"""Do the eyes and the mouth of a drawn face look like those of a render? By pixels, since a detector's points lie well on a smeared mouth.

A part is a window of the picture around where the detector sees it, its mean taken off and brought to unit length, so that neither skin
nor light counts. It is compared with the parts of many renders, moved by a few pixels each way, since a detector is not exact; how
far it is from the most alike of them, 1 - cosine, is its distance. A part is like a render's where nineteen of twenty renders of other people
are as far or further in. Mirrored parts count as renders' too: a right eye is a left one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from faceclip_serving.face.alignment import Points

from ..measure.pictures import Picture

SIDE = 128
"""Of the pictures that are compared, pixels."""
RENDERS = 1500
"""Whose parts are what others are compared with."""
_OTHERS = 160
"""Renders that tell the bounds, of other people."""
_WITHIN = 0.95
_MOVED = 3
"""How far a part is moved for the comparison, pixels, each way."""
MOUTH, EYE = (32, 16), (20, 16)
"""Width and height of the windows."""
Floats = NDArray[np.float32]


def windows(picture: Picture, middle: Points, size: tuple[int, int], moved: int = 0) -> Floats:
    """[(2 moved + 1)^2, width * height * 3]: the window of `size` around `middle` (x, y), and around the points near it; of unit length,
    in CIELAB."""
    width, height = size
    lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    centre = (float(middle[0]), float(middle[1]))
    large = cv2.getRectSubPix(lab, (width + 2 * moved, height + 2 * moved), centre)
    steps = range(2 * moved + 1)
    rows = np.stack([large[y : y + height, x : x + width].reshape(-1, 3) for y in steps for x in steps])
    rows = (rows - rows.mean(1, keepdims=True)).reshape(len(rows), -1)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), np.float32)


def middles(landmarks: Points) -> tuple[Points, Points, Points]:
    """Left eye, right eye and mouth, (x, y), of the five points of a face."""
    return landmarks[0], landmarks[1], landmarks[3:].mean(0)
