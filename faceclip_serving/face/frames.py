"""Which part of a picture is drawn, at which size, and how it comes back: cut out, resized, and put where it was.

Knows pixels; nothing of what is drawn, or of masks beyond where they are white. Resized as diffusers does: Lanczos.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..contract.variants.variant import Limits
from .photos import Pixels

Place = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class Frame:
    """A part of a picture, and where it lies in what is drawn."""

    box: Place
    """In the picture."""
    height: int
    width: int
    """Of what is drawn."""
    place: Place
    """In what is drawn. Around it, edges go on."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Frame:
        return cls(tuple(told["box"]), told["height"], told["width"], tuple(told["place"]))

    def seen(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part of a picture [height, width, 3] or a mask [height, width] as it is to be drawn."""
        left, top, right, bottom = self.place
        part = _resized(_cut(pixels, self.box), bottom - top, right - left)
        around = ((top, self.height - bottom), (left, self.width - right), (0, 0))[: pixels.ndim]
        return np.pad(part, around, mode="edge")

    def returned(self, drawn: Pixels) -> Pixels:
        """What was drawn, in the size of the box."""
        left, top, right, bottom = self.box
        return _resized(_cut(drawn, self.place), bottom - top, right - left)


def _cut(pixels: NDArray[np.uint8], place: Place) -> NDArray[np.uint8]:
    left, top, right, bottom = place
    return pixels[top:bottom, left:right]


def _resized(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def whole(size: tuple[int, int], height: int, width: int) -> Frame:
    """All of a picture of `size`, height and width, stretched where its shape is another one."""
    return Frame((0, 0, size[1], size[0]), height, width, (0, 0, width, height))


def around(mask: NDArray[np.bool_], margin: int, height: int, width: int) -> Frame:
    """What lies within `margin` pixels of a mask that is white somewhere, made as wide for its height as what is drawn, within the
    picture: diffusers' `padding_mask_crop`. Where the picture is too small for that shape, edges go on in what is drawn.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    top, bottom = _widened(rows[0], rows[-1] + 1, margin, mask.shape[0])
    left, right = _widened(columns[0], columns[-1] + 1, margin, mask.shape[1])
    shape = width / height
    if (right - left) / (bottom - top) > shape:
        top, bottom = _lengthened(top, bottom, int((right - left) / shape), mask.shape[0])
    else:
        left, right = _lengthened(left, right, int((bottom - top) * shape), mask.shape[1])
    across, down = right - left, bottom - top
    fit_width = min(width, max(1, across * height // down))
    fit_height = min(height, max(1, down * width // across))
    x, y = width // 2 - fit_width // 2, height // 2 - fit_height // 2
    return Frame((left, top, right, bottom), height, width, (x, y, x + fit_width, y + fit_height))


def _widened(start: int, end: int, margin: int, length: int) -> tuple[int, int]:
    return max(int(start) - margin, 0), min(int(end) + margin, length)


def _lengthened(start: int, end: int, wanted: int, length: int) -> tuple[int, int]:
    """A span that is `wanted` long, about the same middle, moved into 0 to `length`; as long as that where it is too short."""
    more = max(wanted - (end - start), 0)
    start, end = start - more // 2, end + more - more // 2
    shift = max(end - length, 0)
    start, end = start - shift, end - shift
    if start < 0:
        start, end = 0, end - start
    return start, min(end, length)


def nearest_size(height: int, width: int, limits: Limits) -> tuple[int, int]:
    """The allowed height and width that are nearest to a picture's: of the same shape, as far as that is allowed."""
    sides = ((height, *limits.height), (width, *limits.width))
    scale = min(max(1.0, *(low / side for side, low, _ in sides)), *(high / side for side, _, high in sides))
    wanted, wide = (_allowed(side * scale, low, high, limits.size_multiple) for side, low, high in sides)
    return wanted, wide


def _allowed(side: float, low: int, high: int, multiple: int) -> int:
    return int(min(max(round(side / multiple) * multiple, low), high))
