"""From an uploaded photograph to the aligned face that the network takes, with a report and warnings.

The photograph is read, its faces are found (or its crop is taken as it is), one is chosen, cut out, and judged. Nothing is kept between
calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..contract.errors import InvalidRequest
from ..contract.variants.architectures import FACE_SIZE
from .alignment import TEMPLATE, Similarity, apply, as_planes, cut_face
from .choice import LARGEST, Choice, choose_face, fractions_of
from .detectors import Detector, Face
from .judgement import (
    GOOD_EYE_DISTANCE,
    MIN_EYE_DISTANCE,
    check_aligned,
    check_face,
    check_sharpness,
    check_turned,
    doubts_of_face,
    doubts_of_sharpness,
    measure_frontality,
    measure_sharpness,
)
from .photos import Photo, Pixels, decode_photo
from .search import find_faces, look_closer

Look = Callable[[int, Pixels], object]
"""Gets a photograph's place in the request, and its pixels."""

MAX_ASPECT = 1.05
THUMBNAIL_SIDE = 256


@dataclass(frozen=True)
class PreparedFace:
    pixels: Pixels
    """The aligned face, [448, 448, 3]."""
    thumbnail: Pixels
    """The whole photograph, squeezed to 256 x 256 pixels."""
    report: dict[str, Any]
    """JSON-able; pixels are those of the upright photograph as sent. `score`, `frontality`: in [0, 1], None if unknown."""
    warnings: list[str]

    @property
    def crop(self) -> NDArray[np.float32]:
        """The aligned face as the network takes it, [3, 448, 448], RGB in [0, 1]."""
        return as_planes(self.pixels)


@dataclass(frozen=True)
class PreparedFaces:
    """All faces of a photograph."""

    crops: list[NDArray[np.float32]]
    """As `PreparedFace.crop`, the largest first."""
    thumbnail: Pixels
    report: dict[str, Any]
    """JSON-able; `found`: box, landmarks, measures and doubts of each face, the latter as they are warned of when it is drawn."""


@dataclass(frozen=True)
class _Seen:
    """A crop, and the face it was cut from, None where no face was seen in a crop that came aligned."""

    pixels: Pixels
    face: Face | None
    to_photo: Similarity
    """Takes the face's points to the pixels of the photograph as sent."""
    warnings: list[str]
    told: Mapping[str, Any]
    """Of the report: which faces there are."""


def prepare_face(
    data: bytes,
    index: int,
    aligned: bool,
    detect: Detector,
    look: Look = lambda index, pixels: None,
    choice: Choice = LARGEST,
) -> PreparedFace:
    """The face of the encoded photograph `face_images[index]`. `aligned`: it is an aligned crop already, used as it is; else `choice`
    says which of its faces.

    `look` sees the decoded photograph before anything is sought in it. Raises what `look` raises, and `InvalidRequest` if the
    photograph cannot be read or shows no usable face.
    """
    name = f"face_images[{index}]"
    photo = decode_photo(data, index)
    look(index, photo.pixels)
    seen = _taken(name, photo, detect) if aligned else _found(name, photo, detect, choice)
    sharpness = measure_sharpness(seen.pixels)
    warnings = [*seen.warnings, *check_sharpness(name, sharpness)]
    report = {
        "photo": {"width": photo.width, "height": photo.height},
        "aligned": aligned,
        "detector": detect.name,
        "sharpness": round(sharpness, 4),
        **_describe(seen.face, seen.to_photo),
        **seen.told,
    }
    return PreparedFace(seen.pixels, thumbnail(photo.pixels), report, warnings)


def thumbnail(pixels: Pixels) -> Pixels:
    """A whole picture, squeezed to 256 x 256 pixels."""
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def list_faces(data: bytes, index: int, detect: Detector, look: Look = lambda index, pixels: None) -> PreparedFaces:
    """Every face of the encoded photograph `face_images[index]`, possibly none. Raises as `prepare_face`."""
    photo = decode_photo(data, index)
    look(index, photo.pixels)
    faces = find_faces(photo.pixels, detect)
    crops = [cut_face(photo.pixels, face.landmarks) for face in faces]
    sharpness = [measure_sharpness(crop) for crop in crops]
    found = [
        {
            **told,
            "sharpness": round(sharp, 4),
            "usable": math.dist(*face.landmarks[:2]) >= MIN_EYE_DISTANCE,
            "doubts": doubts_of_face(face, photo.pixels, photo.factor) | doubts_of_sharpness(sharp),
        }
        for told, face, sharp in zip(_listed(photo, faces), faces, sharpness, strict=True)
    ]
    report = {"photo": {"width": photo.width, "height": photo.height}, "detector": detect.name, "found": found}
    return PreparedFaces([as_planes(crop) for crop in crops], thumbnail(photo.pixels), report)


def _found(name: str, photo: Photo, detect: Detector, choice: Choice) -> _Seen:
    """The face of a photograph that is meant, cut out."""
    faces = find_faces(photo.pixels, detect)
    chosen = choose_face(name, faces, choice, photo.pixels, detect)
    if chosen is None:
        raise InvalidRequest(
            f"{name}: no face was found in {photo.width} x {photo.height} pixels; use a sharp, frontal photograph where "
            f"the face is at least {2 * GOOD_EYE_DISTANCE * photo.factor:.0f} pixels wide, or pass an aligned crop with face_aligned"
        )
    warnings = [*chosen.warnings, *check_face(name, chosen.face, photo.pixels, photo.factor)]
    told = {"chosen": chosen.index, "found": _listed(photo, chosen.faces)}
    return _Seen(cut_face(photo.pixels, chosen.face.landmarks), chosen.face, _to_photo(photo), warnings, told)


def _to_photo(photo: Photo) -> Similarity:
    return np.array([[photo.factor, 0, 0], [0, photo.factor, 0]])


def _listed(photo: Photo, faces: Sequence[Face]) -> list[dict[str, Any]]:
    """Faces as they are told, the largest first. `fractions`: their box as `face_boxes` takes it."""
    height, width = photo.pixels.shape[:2]
    return [{**_describe(face, _to_photo(photo)), "fractions": fractions_of(face, height, width)} for face in faces]


def _taken(name: str, photo: Photo, detect: Detector) -> _Seen:
    """A photograph that is an aligned crop, as it is; a look at it, in all turns, only warns."""
    crop = aligned_crop(name, photo.pixels)
    seen = [look_closer(np.ascontiguousarray(np.rot90(crop, turns)), TEMPLATE, detect) for turns in range(4)]
    best = max(range(4), key=lambda turns: seen[turns].score if seen[turns] else 0.0)  # type: ignore[union-attr]
    warnings = check_aligned(name, seen[0]) if best == 0 else check_turned(name, 90 * best)
    to_photo = np.array([[photo.width / FACE_SIZE, 0, 0], [0, photo.height / FACE_SIZE, 0]])
    return _Seen(crop, seen[0] if best == 0 else None, to_photo, warnings, {"chosen": None, "found": []})


def aligned_crop(name: str, image: Pixels) -> Pixels:
    """A crop that the caller aligned, [448, 448, 3]. Raises `InvalidRequest` unless it is square, within 5 %."""
    height, width = image.shape[:2]
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InvalidRequest(
            f"{name}: with face_aligned, expected a square crop of {FACE_SIZE} x {FACE_SIZE} pixels, got "
            f"{width} x {height}; pass such a crop, or leave out face_aligned to have the face found"
        )
    smoothing = cv2.INTER_AREA if min(width, height) > FACE_SIZE else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (FACE_SIZE, FACE_SIZE), interpolation=smoothing), np.uint8)


def _describe(face: Face | None, to_photo: Similarity) -> dict[str, Any]:
    if face is None:
        return dict.fromkeys(("box", "landmarks", "eye_distance", "score", "frontality"))
    landmarks = apply(to_photo, face.landmarks)
    box = np.array(face.box) * np.diag(to_photo[:, :2])[[0, 1, 0, 1]]
    return {
        "box": box.round(1).tolist(),
        "landmarks": landmarks.round(1).tolist(),
        "eye_distance": round(math.dist(*landmarks[:2]), 1),
        "score": round(face.score, 3),
        "frontality": round(measure_frontality(face.landmarks), 3),
    }
