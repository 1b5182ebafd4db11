"""The example that all measurements draw, and what requests bring besides words."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
from PIL import Image

from export.paths import PHOTOGRAPH, ROOT

from .pictures import png

PHOTO = PHOTOGRAPH
PROMPT = "portrait of an astronaut, studio light"
ALIGNED = ROOT / "examples" / "portrait.png"
"""An aligned crop: nobody searches it for faces."""
FULL, CLOSE = (0, 0, 512, 512), (100, 0, 380, 280)
"""Parts of the photograph, left, top, right, bottom: the face is a fifth of the one, and a third of the other."""
SIDE_BY_SIDE = json.dumps([{"faces": [0], "box": [0, 0, 0.5, 1]}, {"faces": [1], "box": [0.5, 0, 1, 1]}])
"""`people`, of two photographs."""


@cache
def picture(side: int, part: tuple[int, int, int, int] = FULL) -> bytes:
    """A picture to change: the photograph, or a part of it, as a file of `side` x `side` pixels."""
    image = Image.open(PHOTO).convert("RGB").crop(part)
    return png(np.asarray(image.resize((side, side), Image.Resampling.LANCZOS)))


@cache
def mask(side: int, share: float = 0.5) -> bytes:
    """A file that is white on the left, over so much of `side` x `side` pixels, and black elsewhere."""
    pixels = np.zeros((side, side), np.uint8)
    pixels[:, : round(share * side)] = 255
    return png(pixels)
