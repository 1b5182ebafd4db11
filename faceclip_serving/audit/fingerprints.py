"""By what a picture is found again: its file exactly, and its look roughly."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE, _WAVES = 32, 8
ALIKE = 10
"""So many bits of 64 may differ between a picture and its copy that was saved again, made smaller or a little brighter."""


def perceptual_hash(pixels: NDArray[np.uint8]) -> str:
    """The DCT hash ("pHash") of an RGB picture [height, width, 3]: 16 hexadecimal digits.

    Bit i says whether the i-th of the 8 x 8 lowest waves of the picture, at 32 x 32 grey pixels, is above their median.
    """
    grey = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    waves = cv2.dct(grey.astype(np.float32))[:_WAVES, :_WAVES]
    return np.packbits(waves > np.median(waves)).tobytes().hex()


def distance(one: str, other: str) -> int:
    """Bits that differ, 0 to 64; unrelated pictures differ in about 32."""
    return (int(one, 16) ^ int(other, 16)).bit_count()
