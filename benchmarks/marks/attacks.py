"""What happens to pictures on their way: each takes RGB, uint8 [height, width, 3], and gives what is left of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from ..measure.pictures import Picture

Attack = Callable[[Picture], Picture]


def saved(file_format: str, **options: Any) -> Attack:
    def attack(picture: Picture) -> Picture:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, file_format, **options)
        return np.array(Image.open(file).convert("RGB"))

    return attack


def resized(scale: float) -> Attack:
    def attack(picture: Picture) -> Picture:
        size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
        return np.array(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))

    return attack


def cropped(share: float) -> Attack:
    """`share` of each side cut off, more of it at the left and the bottom."""

    def attack(picture: Picture) -> Picture:
        height, width = picture.shape[:2]
        top, left = int(height * share * 0.4), int(width * share * 0.6)
        return np.ascontiguousarray(picture[top : top + int(height * (1 - share)), left : left + int(width * (1 - share))])

    return attack


def brighter(factor: float) -> Attack:
    return lambda picture: np.clip(picture * factor, 0, 255).astype(np.uint8)


def mirrored(picture: Picture) -> Picture:
    return np.ascontiguousarray(picture[:, ::-1])


def screenshot(picture: Picture) -> Picture:
    """At 80 % on a light page with margins, saved as JPEG 85."""
    small = resized(0.8)(picture)
    across, down = max(8, small.shape[1] // 10), max(8, small.shape[0] // 12)
    page = np.full((small.shape[0] + 2 * down, small.shape[1] + 2 * across, 3), 240, np.uint8)
    page[down:-down, across:-across] = small
    return saved("JPEG", quality=85)(page)


def rotated(degrees: float) -> Attack:
    return lambda picture: np.array(Image.fromarray(picture).rotate(degrees, Image.Resampling.BICUBIC))


def blurred(picture: Picture) -> Picture:
    """Reduced to a quarter and enlarged again: about what a generative model's encoder keeps."""
    return np.array(
        Image.fromarray(resized(0.25)(picture)).resize((picture.shape[1], picture.shape[0]), Image.Resampling.BICUBIC)
    )


def then(*attacks: Attack) -> Attack:
    def attack(picture: Picture) -> Picture:
        for each in attacks:
            picture = each(picture)
        return picture

    return attack


ATTACKS: Mapping[str, Attack] = {
    "none": lambda picture: picture,
    "jpeg_90": saved("JPEG", quality=90),
    "jpeg_70": saved("JPEG", quality=70),
    "jpeg_50": saved("JPEG", quality=50),
    "webp_80": saved("WEBP", quality=80),
    "resize_0.75": resized(0.75),
    "resize_0.5": resized(0.5),
    "resize_1.5": resized(1.5),
    "crop_10": cropped(0.10),
    "crop_25": cropped(0.25),
    "crop_25_jpeg_70": then(cropped(0.25), saved("JPEG", quality=70)),
    "brightness_1.2": brighter(1.2),
    "screenshot": screenshot,
    "mirror": mirrored,
    "mirror_crop_10": then(mirrored, cropped(0.10)),
}
"""What a mark is made to survive."""
BEYOND: Mapping[str, Attack] = {
    "crop_60": cropped(0.60),
    "jpeg_20": saved("JPEG", quality=20),
    "rotate_0.5": rotated(0.5),
    "rotate_2": rotated(2.0),
    "resize_0.25": resized(0.25),
    "quarter_and_back": blurred,
}
"""What it is not made to survive; measured all the same, so that its limits are told."""
