"""A soft canvas in floats: blurred masks, grain, shadows that keep what lies under them. For lifelike portraits; `canvas` is for flat ones.

Shapes are in the head units of a frame; colours are RGB, 0-255.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, Colour, Frame, Points

Mask = NDArray[np.float32]
"""[size, size], 0 to 1."""
Pixels = NDArray[np.float32]
"""[size, size, 3], or what broadcasts to it."""
Random = np.random.Generator


def blurred(mask: Mask, sigma: float) -> Mask:
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), sigma), np.float32) if sigma > 0.3 else mask


class Painting:
    """A square picture under way. `r`: what its grain is drawn from."""

    def __init__(self, size: int, frame: Frame, r: Random) -> None:
        self.size, self.frame, self.r = size, frame, r
        self.pixels: Pixels = np.zeros((size, size, 3), np.float32)

    @property
    def unit(self) -> float:
        """Pixels of one head unit."""
        return self.frame.scale * self.size

    def grid(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Head units of every pixel."""
        v, u = np.mgrid[0 : self.size, 0 : self.size] / self.size
        u, v = (u - self.frame.x) / self.frame.scale, (v - self.frame.y) / self.frame.scale
        c, s = np.cos(self.frame.turn), np.sin(self.frame.turn)
        return u * c + v * s, v * c - u * s

    def shaded(self, share: float) -> Pixels:
        """What lies there, darkened to `share`, reddish as shadows on skin are: [size, size, 3]."""
        return np.asarray(self.pixels * np.array([share**0.85, share, share**1.05], np.float32), np.float32)

    def put(self, mask: Mask, colour: Pixels, opacity: float = 1.0) -> None:
        """Lays a colour over what is there, by the mask."""
        share = (mask if mask.ndim == 3 else mask[..., None]) * np.float32(opacity)
        self.pixels += (colour - self.pixels) * np.clip(share, 0, 1)

    def mask(self, shape: Points, blur: float) -> Mask:
        """1 within a shape in head units, its edge blurred over `blur` units."""
        mask = np.zeros((self.size, self.size), np.uint8)
        cv2.fillPoly(mask, [np.round(self.frame(shape) * self.size * 16).astype(np.int32)], 255.0, cv2.LINE_AA, 4)
        return blurred(mask.astype(np.float32) / 255, blur * self.unit)

    def line(
        self, line: Points, width: float, colour: Colour | Pixels, blur: float, opacity: float, closed: bool = False
    ) -> None:
        """A line of `width` units, its edge blurred over `blur` units."""
        mask = np.zeros((self.size, self.size), np.uint8)
        placed = np.round(self.frame(line) * self.size * 16).astype(np.int32)
        cv2.polylines(mask, [placed], closed, 255.0, max(1, round(width * self.unit)), cv2.LINE_AA, 4)
        self.put(blurred(mask.astype(np.float32) / 255, blur * self.unit), np.asarray(colour, np.float32), opacity)

    def grain(self, across: float, along: float, strength: float) -> Pixels:
        """Noise around 1, [size, size, 1]; its spots are `across` x `along` pixels of 256, turned a little."""
        noise = self.r.standard_normal((self.size, self.size), np.float32)
        share = self.size / 256
        noise = np.asarray(
            cv2.GaussianBlur(noise, (0, 0), max(across * share, 0.3), sigmaY=max(along * share, 0.3)), np.float32
        )
        if across != along:
            turn = cv2.getRotationMatrix2D((self.size / 2, self.size / 2), float(self.r.uniform(-30, 30)), 1.3)
            noise = np.asarray(cv2.warpAffine(noise, turn, (self.size, self.size), borderMode=cv2.BORDER_REFLECT), np.float32)
        return np.asarray((1 + strength * noise / (noise.std() + 1e-6))[..., None], np.float32)

    def drawn(self, draw: Callable[[Canvas], None]) -> tuple[Mask, Pixels]:
        """Where a drawing of the world covers what is there, and its colours."""
        canvas = Canvas(self.size, 2)
        canvas.pixels[:] = np.clip(self.pixels, 0, 255).astype(np.uint8).repeat(2, 0).repeat(2, 1)
        before = canvas.picture()
        draw(canvas)
        after = canvas.picture()
        return (after != before).any(2).astype(np.float32), after.astype(np.float32)
