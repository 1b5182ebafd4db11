"""The visible label: that a picture is generated, in Chinese, English or both, drawn into a corner.

Its lowest letter is at least a twentieth of the picture's short side, as GB 45438-2025 asks.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
"""RGB, [height, width, 3]."""

LINES = {"zh": ("AI生成",), "en": ("AI GENERATED",), "both": ("AI生成", "AI GENERATED")}
"""Kind of label -> what it says."""
FONT = Path(__file__).with_name("label.otf")
LOWEST_SHARE = 0.05
"""Height of the lowest letter, of the picture's short side."""
_LEAST_PX = 8
"""Height of the lowest letter where the picture is small."""
_PLATE, _INK = (0, 0, 0, 160), (255, 255, 255, 255)


def joined(one: str, other: str) -> str:
    """What a picture bears of which two sides want `none`, `zh`, `en` or `both`."""
    wanted = {one, other} - {"none"}
    return "none" if not wanted else wanted.pop() if len(wanted) == 1 else "both"


def draw(image: Pixels, kind: str, corner: str) -> Pixels:
    """A copy of `image` with the label. `kind`: of `LINES`, or `none`. `corner`: such as `top_right`."""
    if kind == "none":
        return image
    height, width = image.shape[:2]
    lines = LINES[kind]
    font = _font(_size(min(height, width), width, lines))
    boxes = [font.getbbox(line) for line in lines]
    gap = max(2, round(font.size * 0.3))
    plate_width = max(box[2] - box[0] for box in boxes) + 2 * gap
    plate_height = sum(box[3] - box[1] for box in boxes) + (len(lines) + 1) * gap
    left = gap if corner.endswith("left") else max(0, width - plate_width - gap)
    top = gap if corner.startswith("top") else height - plate_height - gap
    layer = Image.new("RGBA", (width, height))
    drawing = ImageDraw.Draw(layer)
    drawing.rectangle((left, top, left + plate_width - 1, top + plate_height - 1), fill=_PLATE)
    at = top + gap
    for line, box in zip(lines, boxes, strict=True):
        drawing.text((left + gap - box[0], at - box[1]), line, font=font, fill=_INK)
        at += box[3] - box[1] + gap
    return np.asarray(Image.alpha_composite(Image.fromarray(image).convert("RGBA"), layer).convert("RGB"))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT), size)


@cache
def _size(short_side: int, width: int, lines: tuple[str, ...]) -> int:
    """The smallest size of the font whose lowest letter is high enough, and easy to read where the picture is wide enough for that."""
    lawful = _high_enough(LOWEST_SHARE * short_side, lines)
    legible = _high_enough(max(LOWEST_SHARE * short_side, _LEAST_PX), lines)
    return legible if max(_font(legible).getlength(line) for line in lines) < 0.94 * width else lawful


def _high_enough(wanted: float, lines: tuple[str, ...]) -> int:
    letters = {letter for line in lines for letter in line if not letter.isspace()}
    size = max(int(wanted), 1)
    while min(_height(size, letter) for letter in letters) < wanted:
        size += 1
    return size


def _height(size: int, letter: str) -> float:
    box = _font(size).getbbox(letter)
    return box[3] - box[1]
