"""From an uploaded photograph to the aligned face that the network takes, with a report and warnings.

Knows how a photograph is searched, which face is taken and when a face is good enough. Detectors, the alignment's geometry and
file formats are others' business. Nothing is kept between calls. The server calls `prepare_face`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .alignment import (
    TEMPLATE,
    Points,
    Similarity,
    align_face,
    apply,
    as_planes,
    fit_similarity,
    invert,
    resample,
    scale_of,
    share_outside,
)
from .detectors import Box, Detector, Face, make_detector
from .photos import Pixels, decode_photo
from .errors import InvalidRequest
from .variants import FACE_SIZE

SCANS = ((480, 0), (480, -25), (480, 25), (1280, 0), (480, 90), (480, -90), (480, 180))
"""(longest side in pixels, turn in degrees), tried in order until a face is found. Small first: detectors are made for faces of
a few hundred pixels at most, and in a huge face see several small ones. Turned: people tilt their heads, and photographs without
EXIF orientation lie on their side."""
LOOKS = 1
MAX_CANDIDATES = 8
"""The largest so many are looked at closely; only the largest face is wanted, and how many are like it."""
SIMILAR_WIDTH = 0.8
"""Another face at least this wide, relative to the largest, makes the choice doubtful."""
MIN_EYE_DISTANCE, GOOD_EYE_DISTANCE = 18.0, 35.0
"""Pixels in the photograph. The network sees the face at 112 x 112, where the eyes are 35 pixels apart: below that the photograph
lacks detail that the network could use, and below half of it no likeness can be expected."""
MIN_SCORE = 0.6
"""Of the closer look. Measured with the embedded detector: faces 0.71 to 0.94, what was none at most 0.58."""
LOW_SCORE, LOW_FRONTALITY, LOW_SHARPNESS = 0.7, 0.5, 0.02
MAX_OUTSIDE = 0.2
"""Share of the crop that may lie outside of the photograph without a warning."""
MAX_MISALIGNMENT = 40.0
"""Mean distance of the landmarks of a crop said to be aligned from `TEMPLATE`, pixels; people differ by 10, detectors by 15."""
MAX_ASPECT = 1.05


@dataclass(frozen=True)
class PreparedFace:
    image: NDArray[np.float32]
    """[3, 448, 448], RGB in [0, 1]."""
    report: dict[str, Any]
    """JSON-able; pixels are those of the upright photograph as sent. `score`, `frontality`: in [0, 1], None if unknown."""
    warnings: list[str]


def prepare_face(data: bytes, index: int, aligned: bool, detect: Detector) -> PreparedFace:
    """The face of the encoded photograph `face_images[index]`. `aligned`: it is an aligned crop already, used as it is.

    Raises `InvalidRequest` if the photograph cannot be read or shows no usable face.
    """
    photo = decode_photo(data, index)
    name = f"face_images[{index}]"
    warnings: list[str] = []
    if aligned:
        image = aligned_crop(photo.pixels, index)
        face = look_closer(to_pixels(image), TEMPLATE, detect)
        warnings += _check_aligned(name, face)
        to_photo = np.array([[photo.width / FACE_SIZE, 0, 0], [0, photo.height / FACE_SIZE, 0]])
    else:
        faces = find_faces(photo.pixels, detect)
        if not faces:
            raise InvalidRequest(
                f"{name}: no face was found in {photo.width} x {photo.height} pixels; use a sharp, frontal photograph where "
                f"the face is at least {2 * GOOD_EYE_DISTANCE:.0f} pixels wide, or pass an aligned crop with face_aligned"
            )
        face, warnings = choose_face(faces, index)
        warnings += _check_found(name, face, photo.pixels)
        image = align_face(photo.pixels, face.landmarks)
        to_photo = np.array([[photo.factor, 0, 0], [0, photo.factor, 0]])
    sharpness = measure_sharpness(image)
    if sharpness < LOW_SHARPNESS:
        warnings.append(f"{name}: the face is blurred (sharpness {sharpness:.3f} below {LOW_SHARPNESS}); use a sharper photograph")
    if detect.caution:
        warnings.append(f"{name}: {detect.caution}")
    report = {
        "photo": {"width": photo.width, "height": photo.height},
        "aligned": aligned,
        "detector": detect.name,
        "sharpness": round(sharpness, 4),
        **_describe(face, to_photo),
    }
    return PreparedFace(image, report, warnings)


# ---------------------------------------------------------------------------------------------------------------- search
def find_faces(image: Pixels, detect: Detector) -> list[Face]:
    """The faces of a photograph, largest first, each confirmed and measured by a closer look. At any size, turned or not."""
    height, width = image.shape[:2]
    scans = dict.fromkeys((min(side, max(width, height)), turn) for side, turn in SCANS)
    for side, turn in scans:
        to_view, view_width, view_height = _view(width, height, side / max(width, height), turn)
        view = resample(image, to_view, view_width, view_height, cv2.BORDER_REPLICATE)
        faces = _confirm(image, (move_face(face, invert(to_view)) for face in detect(view)), detect)
        if faces:
            return faces
    return []


def look_closer(image: Pixels, landmarks: Points, detect: Detector) -> Face | None:
    """The face near the given points, searched where it is upright, about 200 pixels wide and in the middle.

    Detectors are far more exact there: the alignment's error falls from 18 to 7 pixels of 448 (YuNet, synthetic turns and scales).
    """
    margin, zoom = 40, 0.6
    side = round(FACE_SIZE * zoom) + 2 * margin
    to_view = fit_similarity(landmarks, TEMPLATE * zoom + margin)
    found = detect(resample(image, to_view, side, side, cv2.BORDER_REPLICATE))
    expected = (TEMPLATE * zoom + margin).mean(axis=0)

    def distance(face: Face) -> float:
        return math.dist(face.landmarks.mean(axis=0), expected)

    nearest = min(found, key=distance, default=None)
    if nearest is None or nearest.score < MIN_SCORE or distance(nearest) > side / 4 or nearest.box.width < side / 4:
        return None
    return move_face(nearest, invert(to_view))


def move_face(face: Face, similarity: Similarity) -> Face:
    """The face in other coordinates; its box stays upright."""
    center = apply(similarity, np.array([[face.box.x + face.box.width / 2, face.box.y + face.box.height / 2]]))[0]
    width, height = (scale_of(similarity) * side for side in face.box[2:])
    box = Box(float(center[0] - width / 2), float(center[1] - height / 2), width, height)
    return Face(box, apply(similarity, face.landmarks), face.score)


def _view(width: int, height: int, scale: float, turn: float) -> tuple[Similarity, int, int]:
    """The similarity that turns a picture about its middle and scales it, and the width and height that hold the result."""
    c, s = scale * math.cos(math.radians(turn)), scale * math.sin(math.radians(turn))
    view_width = max(round(abs(c) * width + abs(s) * height), 1)
    view_height = max(round(abs(s) * width + abs(c) * height), 1)
    linear = np.array([[c, -s], [s, c]])
    middle = np.array([view_width - 1, view_height - 1]) / 2 - linear @ (np.array([width - 1, height - 1]) / 2)
    return np.column_stack([linear, middle]), view_width, view_height


def _confirm(image: Pixels, candidates: Iterable[Face], detect: Detector) -> list[Face]:
    faces: list[Face] = []
    largest = sorted(candidates, key=lambda face: face.box.width, reverse=True)[:MAX_CANDIDATES]
    for candidate in largest:
        face: Face | None = candidate
        for _ in range(LOOKS):
            face = face and look_closer(image, face.landmarks, detect)
        if face is not None and not any(_covers(known.box, face.landmarks.mean(axis=0)) for known in faces):
            faces.append(face)
    return sorted(faces, key=lambda face: face.box.width, reverse=True)


def _covers(box: Box, point: Points) -> bool:
    return box.x < point[0] < box.x + box.width and box.y < point[1] < box.y + box.height


# ---------------------------------------------------------------------------------------------------------------- choice
def choose_face(faces: list[Face], index: int = 0) -> tuple[Face, list[str]]:
    """The largest of at least one face, and a warning if that was not a clear choice."""
    largest = max(faces, key=lambda face: face.box.width)
    similar = [face for face in faces if face.box.width >= SIMILAR_WIDTH * largest.box.width]
    if len(similar) == 1:
        return largest, []
    return largest, [f"face_images[{index}]: {len(similar)} faces of similar size were found and the largest was used; "
                     "crop the photograph to the person"]  # fmt: skip


def measure_frontality(landmarks: Points) -> float:
    """1 when the nose lies on the middle line of eyes and mouth, 0 when it lies below an eye or further out (a profile).

    Estimated landmarks (see the embedded detector) are symmetric, so they give 1.
    """
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    across = landmarks[1] - landmarks[0]
    down = mouth - eyes
    length = math.hypot(*down)
    nose = landmarks[2] - eyes
    half_width = math.hypot(*across) / 2
    if length == 0 or half_width == 0:
        return 0.0
    aside = abs(down[0] * nose[1] - down[1] * nose[0]) / length
    return float(max(0.0, 1 - aside / half_width))


def measure_sharpness(crop: NDArray[np.float32]) -> float:
    """Energy of the finest detail that the network can see, relative to contrast: variance of the Laplacian / variance.

    Of the middle of the aligned crop ([3, 448, 448]), in grey at 112 x 112. A flat picture gives 0.
    """
    grey = cv2.cvtColor(np.ascontiguousarray(crop.transpose(1, 2, 0)), cv2.COLOR_RGB2GRAY)
    middle = cv2.resize(grey, (112, 112), interpolation=cv2.INTER_AREA)[24:104, 16:96]
    contrast = float(middle.var())
    return float(cv2.Laplacian(middle, cv2.CV_32F).var()) / contrast if contrast > 1e-6 else 0.0


# ----------------------------------------------------------------------------------------------------------------- checks
def aligned_crop(image: Pixels, index: int = 0) -> NDArray[np.float32]:
    """A crop that the caller aligned, [3, 448, 448] in [0, 1]. Raises `InvalidRequest` unless it is square, within 5 %."""
    height, width = image.shape[:2]
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InvalidRequest(
            f"face_images[{index}]: with face_aligned, expected a square crop of {FACE_SIZE} x {FACE_SIZE} pixels, got "
            f"{width} x {height}; pass such a crop, or leave out face_aligned to have the face found"
        )
    smoothing = cv2.INTER_AREA if min(width, height) > FACE_SIZE else cv2.INTER_CUBIC
    return as_planes(np.asarray(cv2.resize(image, (FACE_SIZE, FACE_SIZE), interpolation=smoothing), np.uint8))


def to_pixels(crop: NDArray[np.float32]) -> Pixels:
    """[3, height, width] in [0, 1] -> [height, width, 3] in 0..255."""
    return np.ascontiguousarray(np.rint(crop * 255).astype(np.uint8).transpose(1, 2, 0))


def _eye_distance(face: Face) -> float:
    return math.dist(*face.landmarks[:2])


def _check_found(name: str, face: Face, image: Pixels) -> list[str]:
    """Warnings about a face found in a photograph. Raises `InvalidRequest` if it is too small."""
    eyes = _eye_distance(face)
    if eyes < MIN_EYE_DISTANCE:
        raise InvalidRequest(
            f"{name}: the face is too small: its eyes are {eyes:.0f} pixels apart, at least {MIN_EYE_DISTANCE:.0f} are needed "
            f"and {GOOD_EYE_DISTANCE:.0f} are good; use a photograph with more pixels of the face"
        )
    height, width = image.shape[:2]
    outside = share_outside(fit_similarity(face.landmarks, TEMPLATE), width, height)
    frontality = measure_frontality(face.landmarks)
    doubts = (
        (eyes < GOOD_EYE_DISTANCE, f"the face is small (eyes {eyes:.0f} pixels apart); from {GOOD_EYE_DISTANCE:.0f} on it is good"),
        (face.score < LOW_SCORE, f"the face is doubtful (score {face.score:.2f}); use a sharp, frontal, well-lit photograph"),
        (frontality < LOW_FRONTALITY, f"the face is turned far aside (frontality {frontality:.2f}); use a frontal photograph"),
        (outside > MAX_OUTSIDE, f"{outside:.0%} of the face crop lies outside the photograph; leave more room around the head"),
    )
    return [f"{name}: {text}" for doubtful, text in doubts if doubtful]


def _check_aligned(name: str, face: Face | None) -> list[str]:
    """Warnings about a crop that the caller aligned, from what is seen in it."""
    if face is None:
        return [f"{name}: no face was seen in the aligned crop; the picture may show nobody in particular"]
    error = float(np.linalg.norm(face.landmarks - TEMPLATE, axis=1).mean())
    if error > MAX_MISALIGNMENT:
        return [f"{name}: the crop is not aligned: eyes, nose and mouth are {error:.0f} pixels away from their places, on average; "
                "leave out face_aligned to have the face found"]  # fmt: skip
    return []


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


__all__ = [
    "Box",
    "Detector",
    "Face",
    "PreparedFace",
    "align_face",
    "aligned_crop",
    "choose_face",
    "find_faces",
    "look_closer",
    "make_detector",
    "measure_frontality",
    "measure_sharpness",
    "move_face",
    "prepare_face",
]
