"""Who is in photographs, as the server tells it: the faces that it finds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ProtocolError
from .transport import Arrays

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Face:
    """One face of a photograph. Pixels are those of the upright photograph."""

    index: int
    """Its number by size, from 0, the largest: what `face_index` takes."""
    fractions: Box
    """Left, top, right and bottom as fractions of the photograph: what `face_boxes` takes."""
    box: Box
    """Left, top, width and height in pixels."""
    landmarks: tuple[tuple[float, float], ...]
    """(x, y) of eyes, tip of the nose, corners of the mouth, in pixels; of a pair the left one as seen first."""
    eye_distance: float
    """Pixels. From 35 up is good."""
    frontality: float
    """1: looks into the camera, 0: a profile."""
    sharpness: float
    """Below 0.15 it is blurred."""
    score: float
    """How sure the detector is, up to 1."""
    usable: bool
    """Whether it is large enough to be drawn."""


def read_faces(arrays: Arrays, model: str) -> list[Face]:
    """The faces of the only photograph of a call, from the tensor `details` [1]."""
    try:
        (photograph,) = read_details(arrays, model)["faces"]
        return [_face(i, told) for i, told in enumerate(photograph["found"])]
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(
            f"model '{model}': expected the faces of a photograph in 'details', got others ({error!r})"
        ) from None


def read_details(arrays: Arrays, model: str) -> dict[str, Any]:
    """The document of the tensor `details` [1]."""
    try:
        found = json.loads(arrays["details"].ravel()[0])
    except (KeyError, IndexError, ValueError) as error:
        raise ProtocolError(f"model '{model}': expected a JSON document in 'details' ({error!r})") from None
    if not isinstance(found, dict):
        raise ProtocolError(f"model '{model}': expected a JSON object in 'details', got {type(found).__name__}")
    return found


def _face(index: int, told: Mapping[str, Any]) -> Face:
    left, top, right, bottom = map(float, told["fractions"])
    x, y, width, height = map(float, told["box"])
    return Face(
        index,
        (left, top, right, bottom),
        (x, y, width, height),
        tuple((float(across), float(down)) for across, down in told["landmarks"]),
        float(told["eye_distance"]),
        float(told["frontality"]),
        float(told["sharpness"]),
        float(told["score"]),
        bool(told["usable"]),
    )
