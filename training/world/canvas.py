"""A small vector canvas: smooth shapes in any affine frame, drawn with supersampling so that edges are anti-aliased.

Knows polygons, strokes, soft light and frames. Does not know what is drawn. Colours are RGB, 0-255; points are
[n, 2] arrays of (x, y) in the units of a `Frame`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Image = NDArray[np.uint8]
Colour = tuple[float, float, float]

_SUBPIXEL_BITS = 4
_STEPS = np.linspace(0, 1, 32)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of `b` in `a`, 0 to 1."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def darker(colour: Colour, share: float) -> Colour:
    """Towards a warm black by `share`, 0 to 1."""
    return mix(colour, (28.0, 18.0, 30.0), share)


def lighter(colour: Colour, share: float) -> Colour:
    return mix(colour, (255.0, 252.0, 246.0), share)


def points(*pairs: tuple[float, float]) -> Points:
    return np.array(pairs, np.float64)


def mirrored(half: Points) -> Points:
    """A closed outline from its right half, listed from top to bottom, both ends on the axis x = 0."""
    return np.concatenate([half, half[-2:0:-1] * [-1, 1]])


def smooth(control: Points, closed: bool = True, per_segment: int = 8) -> Points:
    """Catmull-Rom spline through `control`: [n, 2] -> [about n * per_segment, 2]."""
    padded = np.concatenate([control[-1:], control, control[:2]] if closed else [control[:1], control, control[-1:]])
    t = np.linspace(0, 1, per_segment, endpoint=False)[:, None, None]
    p0, p1, p2, p3 = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    flat = curve.transpose(1, 0, 2).reshape(-1, 2)
    return flat if closed else np.concatenate([flat, control[-1:]])


def symmetric(*half: tuple[float, float]) -> Points:
    """A smooth outline from the points of its right half, as `mirrored` takes them."""
    return smooth(mirrored(points(*half)))


def oval(x: float, y: float, rx: float, ry: float, start: float = 0.0, end: float = 360.0) -> Points:
    """Arc of an ellipse, degrees clockwise from the right; the whole ellipse by default."""
    angle = np.radians(start + (end - start) * _STEPS)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1)


@dataclass(frozen=True)
class Frame:
    """Units of a drawing: point -> picture, both spanning [0, 1], by scale, rotation (radians) and origin."""

    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    turn: float = 0.0

    def __call__(self, local: Points) -> Points:
        c, s = np.cos(self.turn), np.sin(self.turn)
        rotated: Points = local @ np.array([[c, s], [-s, c]])
        return np.asarray(rotated * self.scale + np.array([self.x, self.y]), np.float64)


class Canvas:
    """A picture of `size` pixels under construction, held at `supersampling` times the size; `across` times as wide as high."""

    def __init__(self, size: int, supersampling: int, across: float = 1.0) -> None:
        self.size, self.across = size, across
        self.side = size * supersampling
        self.pixels: Image = np.zeros((self.side, round(self.side * across), 3), np.uint8)

    def fill(self, shape: Points, colour: Colour, frame: Frame = Frame(), opacity: float = 1.0) -> None:
        """A filled polygon."""
        fixed = self._fixed(shape, frame)
        if opacity >= 1:
            cv2.fillPoly(self.pixels, [fixed], colour, shift=_SUBPIXEL_BITS)
            return
        part = self._window(shape, frame, 0.0)
        if part is not None:
            window, corner = part
            over = window.copy()
            cv2.fillPoly(over, [fixed - self._shift(corner)], colour, shift=_SUBPIXEL_BITS)
            window[:] = cv2.addWeighted(over, opacity, window, 1 - opacity, 0)

    def stroke(self, line: Points, colour: Colour, width: float, frame: Frame = Frame(), closed: bool = False) -> None:
        """A line of `width` (in units of the frame), with round ends."""
        pixels = max(1, round(width * frame.scale * self.side))
        cv2.polylines(self.pixels, [self._fixed(line, frame)], closed, colour, pixels, cv2.LINE_8, _SUBPIXEL_BITS)

    def soft(self, shape: Points, colour: Colour, blur: float, frame: Frame = Frame(), opacity: float = 1.0) -> None:
        """A polygon with edges blurred over `blur` units: light, shadow, blush."""
        reach = blur * frame.scale * self.side
        part = self._window(shape, frame, 2 * reach)
        if part is None:
            return
        window, corner = part
        shrink = max(1, int(reach / 3))
        small = np.zeros((window.shape[0] // shrink + 1, window.shape[1] // shrink + 1), np.uint8)
        fixed = (self._fixed(shape, frame) - self._shift(corner)) // shrink
        cv2.fillPoly(small, [fixed.astype(np.int32)], 255.0, shift=_SUBPIXEL_BITS)
        small = np.asarray(cv2.GaussianBlur(small, (0, 0), max(0.3, reach / shrink / 2)), np.uint8)
        mask: NDArray[Any] = cv2.resize(
            small, (small.shape[1] * shrink, small.shape[0] * shrink), interpolation=cv2.INTER_LINEAR
        )
        share = (mask[: window.shape[0], : window.shape[1], None] * np.float32(opacity * 128 / 255)).astype(np.int16)
        window += (((np.array(colour, np.int16) - window) * share) >> 7).astype(np.uint8)

    def gradient(self, top: Colour, bottom: Colour, start: float = 0.0, end: float = 1.0) -> None:
        """Fills the rows from `start` to `end` with a vertical gradient."""
        first, last = round(start * self.side), round(end * self.side)
        share = np.linspace(0, 1, max(last - first, 1), dtype=np.float32)[:, None, None]
        rows = np.array(top, np.float32) * (1 - share) + np.array(bottom, np.float32) * share
        self.pixels[first:last] = rows.astype(np.uint8)

    def picture(self) -> Image:
        """RGB [size, across * size, 3], 0-255."""
        small = cv2.resize(self.pixels, (round(self.size * self.across), self.size), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.uint8)

    def _fixed(self, shape: Points, frame: Frame) -> NDArray[np.int32]:
        return np.asarray(np.round(frame(shape) * self.side * (1 << _SUBPIXEL_BITS)), np.int32)

    @staticmethod
    def _shift(corner: tuple[int, int]) -> NDArray[np.int32]:
        return np.asarray(np.array(corner, np.int32) << _SUBPIXEL_BITS, np.int32)

    def _window(self, shape: Points, frame: Frame, margin: float) -> tuple[Image, tuple[int, int]] | None:
        """The part of the picture that a shape can touch, and its corner (x, y)."""
        placed = frame(shape) * self.side
        left, top = np.maximum(np.floor(placed.min(0) - margin).astype(int), 0)
        right, bottom = np.minimum(np.ceil(placed.max(0) + margin).astype(int) + 1, self.pixels.shape[1::-1])
        return None if right <= left or bottom <= top else (self.pixels[top:bottom, left:right], (int(left), int(top)))
