"""Who is in photographs, as the server tells it: the faces that it finds, and identities that it seals."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from .errors import ProtocolError
from .result import check_outputs, write_file
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
    doubts: Mapping[str, str] = field(default_factory=dict)
    """What may cost likeness: `eye_distance`, `frontality`, `sharpness`, `score` or `outside` (of the photograph) -> the words."""


@dataclass(frozen=True)
class Identity:
    """Somebody's face, sealed by a server, which alone can open it. Given as `identity` in the place of photographs, as often as wanted.

    It is as good as a photograph for drawing that person on that server, so keep it as you would keep one.
    """

    data: bytes = field(repr=False)
    """What is saved as a file. Without the server's key it says nothing of the face."""
    id: str = ""
    """By which the server's log names it."""
    expires: str | None = None
    """When it ends, RFC 3339; None: never by itself."""
    details: dict[str, Any] = field(default_factory=dict, repr=False)
    """The server's report: faces found, warnings, timings in seconds."""

    @property
    def warnings(self) -> list[str]:
        """What the server found worth telling of the photographs."""
        return list(self.details.get("warnings", []))

    def save(self, path: str | Path) -> Path:
        """Writes `data`, by custom to a name that ends in `.faceid`; its owner alone can read the file. Replaces an existing one."""
        target = Path(path)
        check_outputs([target])
        write_file(target, self.data, 0o600)
        return target


def read_identity(arrays: Arrays, model: str) -> Identity:
    """The identity of a call, from the tensors `identity` [1] and `details` [1]."""
    details = read_details(arrays, model)
    try:
        (data,), told = arrays["identity"], details["identity"]
        return Identity(bytes(data), str(told["id"]), told["expires"], details)
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"model '{model}': expected a sealed identity, got none ({error!r})") from None


def encode_identity(identity: Identity | bytes | str | os.PathLike[str] | BinaryIO) -> bytes:
    """An identity as a file's content. Raises `OSError` if a file cannot be read."""
    if isinstance(identity, Identity):
        return identity.data
    if isinstance(identity, (bytes, bytearray, memoryview)):
        return bytes(identity)
    if isinstance(identity, (str, os.PathLike)):
        return Path(identity).read_bytes()
    if hasattr(identity, "read"):
        content = identity.read()
        if isinstance(content, bytes):
            return content
    raise TypeError(
        f"identity: expected what identity() returns, a path, bytes or a file opened with 'rb', got {type(identity).__name__}"
    )


def read_faces(arrays: Arrays, model: str) -> list[Face]:
    """The faces of the only photograph of a call, from the tensor `details` [1]."""
    try:
        (photograph,) = read_details(arrays, model)["faces"]
        return [_face(i, told) for i, told in enumerate(photograph["found"])]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
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
        {str(measure): str(text) for measure, text in told["doubts"].items()},
    )
