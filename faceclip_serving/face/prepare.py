"""From an uploaded photograph to the aligned face that the network takes, with a report and warnings.

Knows which face is taken and when one is good enough. How a photograph is searched, the geometry of alignment and file formats
are its neighbours' business. Nothing is kept between calls. The server calls `prepare_face`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..contract.architectures import FACE_SIZE
from ..contract.errors import InvalidRequest
from .alignment import TEMPLATE, Points, Similarity, align_face, apply, as_planes, fit_similarity, share_outside
from .detectors import Detector, Face, make_detector
from .photos import Pixels, decode_photo
from .search import find_faces, look_closer

__all__ = [
    "Detector",
    "PreparedFace",
    "aligned_crop",
    "check_face",
    "choose_face",
    "make_detector",
    "measure_frontality",
    "measure_sharpness",
    "prepare_face",
]

SIMILAR_WIDTH = 0.8
"""Another face at least this wide, relative to the largest, makes the choice doubtful."""
MIN_EYE_DISTANCE, GOOD_EYE_DISTANCE = 18.0, 35.0
"""Pixels in the photograph. The network sees the face at 112 x 112, where the eyes are 35 pixels apart: below that it could use
detail that the photograph lacks, and below half of it no likeness can be expected."""
LOW_SCORE, LOW_FRONTALITY, LOW_SHARPNESS = 0.65, 0.5, 0.15
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
        warnings += check_face(name, face, photo.pixels)
        image = align_face(photo.pixels, face.landmarks)
        to_photo = np.array([[photo.factor, 0, 0], [0, photo.factor, 0]])
    sharpness = measure_sharpness(image)
    if sharpness < LOW_SHARPNESS:
        warnings.append(f"{name}: the face is blurred (sharpness {sharpness:.2f} of {LOW_SHARPNESS}); use a sharper photograph")
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


# ---------------------------------------------------------------------------------------------------------------- choice
def choose_face(faces: list[Face], index: int = 0) -> tuple[Face, list[str]]:
    """The largest of at least one face, and a warning if that was not a clear choice."""
    largest = max(faces, key=lambda face: face.box.width)
    similar = [face for face in faces if face.box.width >= SIMILAR_WIDTH * largest.box.width]
    if len(similar) == 1:
        return largest, []
    found = f"{len(similar)} faces of similar size were found and the largest was used"
    return largest, [f"face_images[{index}]: {found}; crop the photograph to the person"]


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
    """Energy of the finest detail that the network can see, relative to detail of twice the size.

    Of the face within the aligned crop ([3, 448, 448]), in grey: variance of the Laplacian at 112 x 112 over that at 56 x 56.
    Unlike the variance alone, this does not depend on beards, make-up and light. Measured: 0.3 to 0.6 for sharp faces, 0.12 to
    0.15 after a Gaussian blur of 4 pixels of 448; a flat picture gives 0.
    """
    grey = cv2.cvtColor(np.ascontiguousarray(crop.transpose(1, 2, 0)), cv2.COLOR_RGB2GRAY)
    fine, coarse = _detail(grey, 112), _detail(grey, 56)
    return fine / coarse if coarse > 1e-9 else 0.0


def _detail(grey: NDArray[Any], side: int) -> float:
    small = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
    face = small[int(0.3 * side) : int(0.9 * side), int(0.2 * side) : int(0.8 * side)]
    return float(cv2.Laplacian(face, cv2.CV_32F).var())


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


def check_face(name: str, face: Face, image: Pixels) -> list[str]:
    """Warnings about a face found in the photograph `image`, which `name` names. Raises `InvalidRequest` if it is too small."""
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
        (eyes < GOOD_EYE_DISTANCE, f"the face is small (eyes {eyes:.0f} pixels apart); {GOOD_EYE_DISTANCE:.0f} are good"),
        (face.score < LOW_SCORE, f"the face is doubtful (score {face.score:.2f}); use a sharp, frontal, well-lit photograph"),
        (frontality < LOW_FRONTALITY, f"the face is turned far aside (frontality {frontality:.2f}); use a frontal photograph"),
        (outside > MAX_OUTSIDE, f"{outside:.0%} of the face crop lies outside the photograph; leave more room around the head"),
    )
    return [f"{name}: {text}" for doubtful, text in doubts if doubtful]


def _check_aligned(name: str, face: Face | None) -> list[str]:
    """Warnings about a crop that the caller aligned, from what is seen in it."""
    if face is None:
        return [f"{name}: no face was seen in the aligned crop; check it, or leave out face_aligned to have the face found"]
    error = float(np.linalg.norm(face.landmarks - TEMPLATE, axis=1).mean())
    if error > MAX_MISALIGNMENT:
        off = f"eyes, nose and mouth are {error:.0f} pixels off their places on average"
        return [f"{name}: the crop is not aligned: {off}; leave out face_aligned to have the face found"]
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
