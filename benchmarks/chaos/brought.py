"""What requests of a storm bring besides words: pictures to change, masks, people, faces to draw again; and what is wrong with such."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from faceclip_serving.contract.tensors import Array, bytes_tensor

from ..measure.example import ALIGNED, CLOSE, PHOTO, SIDE_BY_SIDE, mask, picture
from ..measure.pictures import png

SIDE = 96
"""Of a picture that comes, pixels: its result is drawn at the request's size and given back at this."""
NAMES = (
    "image", "mask_image", "mask", "padding_mask_crop", "strength", "face_detail", "people", "identity", "face_images", "face_aligned",
    "blend_weight",
)  # fmt: skip
"""Parameters of what is brought here, and of faces."""
DETAIL = 7
"""A good request has a face drawn again if its number ends so."""


def brought(number: int, rng: random.Random) -> dict[str, Any]:
    """Parameters of good request `number`: half of all bring nothing."""
    strength = {"strength": rng.choice((0.5, 1.0))}
    kinds: dict[int, dict[str, Any]] = {
        3: {"image": picture(SIDE), **strength},
        4: {"image": picture(SIDE), "mask_image": mask(SIDE), **strength},
        DETAIL: {"face_detail": 0.5},
        9: {"image": picture(SIDE), "mask_image": mask(SIDE, 0.8), "face_detail": 0.5, **strength},
    }
    few: dict[int, dict[str, Any]] = {
        5: {"image": picture(SIDE, CLOSE), "mask": "face", "padding_mask_crop": 8},  # searched for a face
        6: {"people": SIDE_BY_SIDE, "face_images": two(), "face_aligned": True},
        26: {"people": SIDE_BY_SIDE, "face_images": two(), "face_aligned": True, "face_detail": 0.5},
    }
    return kinds.get(number % 10) or few.get(number % 30) or {}


@cache
def two() -> list[bytes]:
    """Aligned crops of two people: one, and who is seen in the mirror."""
    return [ALIGNED.read_bytes(), png(np.asarray(Image.open(ALIGNED).convert("RGB"))[:, ::-1].copy())]


def bad_ones(sealed: bytes) -> list[tuple[Mapping[str, Array | None], str]]:
    """Changes that spoil a good request, in the place of all that it brings, and a word of the refusal. `sealed`: an identity; none:
    what needs one is left out."""
    nothing: dict[str, Array | None] = dict.fromkeys(NAMES)
    image = {"image": _files(picture(SIDE)), "num_inference_steps": np.array([8], np.int32)}
    half = {"mask_image": _files(mask(SIDE))}
    one = {"face_images": _files(ALIGNED.read_bytes()), "face_aligned": np.array([True])}
    several = {**one, "face_images": bytes_tensor(two())}
    black, colours = np.zeros((SIDE, SIDE), np.uint8), np.asarray(Image.open(io.BytesIO(picture(SIDE))))
    truncated, altered = sealed[: len(sealed) // 2], sealed[:-1] + bytes([sealed[-1] ^ 1]) if sealed else b""
    place = {"box": [0, 0, 1, 1]}
    changes: list[tuple[dict[str, Array], str]] = [
        ({**image, "mask_image": _files(mask(SIDE // 2))}, "mask_image"),
        ({**image, "mask_image": _files(png(black))}, "mask_image"),
        ({**image, "mask_image": _files(png(colours))}, "mask_image"),
        ({**image, "mask_image": _files(b"hello")}, "mask_image"),
        (half, "mask_image"),
        ({**image, **half, "mask": _files(b"face")}, "mask"),
        ({**image, "mask": _files(b"everything")}, "mask"),
        ({**image, "image": _files(picture(SIDE)[: len(picture(SIDE)) // 2])}, "image"),
        ({**image, "strength": _number(0.0)}, "strength"),
        ({**image, "strength": _number(float("nan"))}, "strength"),
        ({**image, "strength": _number(2.0)}, "strength"),
        ({"face_detail": _number(float("inf"))}, "face_detail"),
        ({"face_detail": _number(0.001)}, "face_detail"),
        ({**several, "people": _people([{"faces": [0], **place}] * 5)}, "people"),
        ({"people": _people([place])}, "people[0]"),
        ({**several, "people": _people([{"faces": [k], **place} for k in range(2)])}, "people["),
        ({**several, "people": _people([{"faces": [0], **place}])}, "face_images[1]"),
        ({**one, "people": _people([{"faces": [0], "box": [0.5, 0, 1.5, 1]}])}, "people[0]"),
        ({**one, "people": _files(b"[" * 9000)}, "people"),
        ({"face_images": _files(PHOTO.read_bytes()), "face_index": np.array([9], np.int32)}, "face_index"),
        ({"identity": _files(b"hello")}, "identity"),
        *(({"identity": _files(file)}, "identity") for file in (truncated, altered, sealed + b"x") if sealed),
        *(({**one, "identity": _files(file)}, "identity") for file in (sealed,) if sealed),
    ]  # fmt: skip
    return [({**nothing, **change}, word) for change, word in changes]


def _files(file: bytes) -> Array:
    return bytes_tensor([file])


def _number(value: float) -> Array:
    return np.array([value], np.float32)


def _people(people: list[dict[str, Any]]) -> Array:
    return _files(json.dumps(people).encode())
