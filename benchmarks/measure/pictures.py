"""Pictures as RGB arrays, uint8 [height, width, 3]: from files, and how far apart two are."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
MAX_PSNR_DB = 200.0
"""Said of equal pictures: JSON has no infinity."""


def decoded(file: bytes) -> Picture:
    return np.asarray(Image.open(io.BytesIO(file)), np.uint8)


def png(pixels: Picture) -> bytes:
    """A file of RGB or grey pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def picture_psnr_db(picture: Picture, reference: Picture) -> float:
    """PSNR of two pictures (or stacks of them), dB; `MAX_PSNR_DB` at most."""
    from export.onnx.draw import psnr_db  # torch

    return min(psnr_db(picture / 255, reference / 255), MAX_PSNR_DB)
