"""Which of the faces of a photograph is meant: the largest, the one of a number, or the one in a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contract.errors import InvalidRequest
from .detectors import Box, Detector, Face
from .photos import Pixels
from .search import find_faces

SIMILAR_WIDTH = 0.8
"""Another face at least this wide, relative to the largest, makes the choice doubtful."""
_MOST_OF_IT = 0.5
"""Share of a face that lies in a box which is about it."""


@dataclass(frozen=True)
class Choice:
    """What a request says of one photograph. Neither: the largest face."""

    index: int | None = None
    """Place among its faces, the largest first."""
    box: Sequence[float] | None = None
    """Left, top, right and bottom, fractions of the photograph: the largest of the faces in it."""


LARGEST = Choice()


@dataclass(frozen=True)
class Chosen:
    faces: Sequence[Face]
    """All of the photograph, the largest first."""
    index: int
    """Of the one that is meant."""
    warnings: Sequence[str] = ()

    @property
    def face(self) -> Face:
        return self.faces[self.index]


def choose_face(name: str, faces: Sequence[Face], choice: Choice, image: Pixels, detect: Detector) -> Chosen | None:
    """The face of the photograph `image`, called `name`, that is meant, of its `faces`, the largest first; None: it shows none at all.

    Raises `InvalidRequest`, with what there is to choose, where no face has that number, or none is in the box.
    """
    if choice.box is not None:
        return in_box(name, name.replace("face_images", "face_boxes"), faces, choice.box, image, detect)
    if not faces:
        return None
    if choice.index is None:
        return Chosen(faces, 0, _doubts(name, faces))
    if choice.index >= len(faces):
        count = "1 face is" if len(faces) == 1 else f"{len(faces)} faces are"
        raise InvalidRequest(
            f"{name.replace('face_images', 'face_index')}: expected {_up_to(len(faces) - 1)}, since {count} in {name}, numbered by size"
            f" from 0, the largest; got {choice.index}; the client's faces() lists them"
        )
    return Chosen(faces, choice.index)


def fractions_of(face: Face, height: int, width: int) -> list[float]:
    """Left, top, right and bottom of a face, as fractions of the picture."""
    x, y, across, down = face.box
    ends = (x / width, y / height, (x + across) / width, (y + down) / height)
    return [round(min(max(each, 0.0), 1.0), 4) for each in ends]


def largest_in(box: Sequence[float], faces: Sequence[Face], height: int, width: int) -> int | None:
    """The number of the first of the faces that lies in a box of the picture, by half at least."""
    inside = (i for i, face in enumerate(faces) if _share_within(face, box, height, width) >= _MOST_OF_IT)
    return next(inside, None)


def places_of(faces: Sequence[Face], height: int, width: int) -> str:
    """Where faces are, for messages."""
    return "; ".join(", ".join(f"{each:.2f}" for each in fractions_of(face, height, width)) for face in faces)


def similar(faces: Sequence[Face]) -> int:
    """How many are about as large as the first, the largest, itself included."""
    return sum(face.box.width >= SIMILAR_WIDTH * faces[0].box.width for face in faces)


def _doubts(name: str, faces: Sequence[Face]) -> list[str]:
    count = similar(faces)
    if count == 1:
        return []
    found = f"{count} faces of similar size were found and the largest was used"
    return [f"{name}: {found}; choose by face_index or face_boxes, or crop the photograph to the person"]


def in_box(
    name: str, parameter: str, faces: Sequence[Face], box: Sequence[float], image: Pixels, detect: Detector
) -> Chosen | None:
    """The largest of the `faces` of the picture `image`, called `name`, of which half lies in a box; where none does, nothing but the
    box is looked at: among many, a small one is seen only there. None: no face is seen at all.

    `parameter`: the box, for messages. Raises `InvalidRequest` where all faces are elsewhere.
    """
    height, width = image.shape[:2]
    known = largest_in(box, faces, height, width)
    if known is not None:
        return Chosen(faces, known)
    within = look_within(box, image, detect)
    if not within and not faces:
        return None
    if not within:
        raise InvalidRequest(
            f"{parameter}: expected a box about a face of {name}, got one without; faces are at {places_of(faces, height, width)}"
        )
    every = sorted([*faces, within[0]], key=lambda face: face.box.width, reverse=True)
    return Chosen(every, next(i for i, face in enumerate(every) if face is within[0]))


def look_within(box: Sequence[float], image: Pixels, detect: Detector) -> list[Face]:
    """The faces that are found where nothing but a box of the picture is looked at, the largest first."""
    height, width = image.shape[:2]
    left, top = int(box[0] * width), int(box[1] * height)
    part = np.ascontiguousarray(image[top : max(round(box[3] * height), top + 1), left : max(round(box[2] * width), left + 1)])
    offset = np.array([left, top], np.float64)
    return [
        Face(Box(face.box.x + left, face.box.y + top, *face.box[2:]), face.landmarks + offset, face.score)
        for face in find_faces(part, detect)
    ]


def _share_within(face: Face, box: Sequence[float], height: int, width: int) -> float:
    """How much of a face's box lies in another one."""
    x, y, across, down = face.box
    left, top, right, bottom = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    common = max(min(x + across, right) - max(x, left), 0.0) * max(min(y + down, bottom) - max(y, top), 0.0)
    return common / max(across * down, 1e-9)


def _up_to(last: int) -> str:
    return "0" if last == 0 else f"a number from 0 to {last}"


def choices(count: int, index: Sequence[int] | None, boxes: Sequence[Any] | None) -> list[Choice]:
    """What a request with `count` photographs says of each. Raises `InvalidRequest`."""
    if index is not None and boxes is not None:
        raise InvalidRequest("face_index: expected none where face_boxes come, got both; leave out one of both")
    for name, told in (("face_index", index), ("face_boxes", boxes)):
        if told is not None and len(told) != count:
            raise InvalidRequest(
                f"{name}: expected one for each of the {count} photographs of face_images, got {len(told)}; to leave the largest face"
                f" to one of them, write {'0' if name == 'face_index' else '0, 0, 1, 1'}"
            )
    if boxes is not None:
        return [Choice(box=box) for box in boxes]
    return [Choice(index=each) for each in index] if index is not None else [LARGEST] * count
