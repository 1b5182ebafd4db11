"""How good a face is for the network: what is measured, what is warned of, and what is refused.

Pixels are those of the photograph unless said otherwise.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..contract.errors import InvalidRequest
from .alignment import TEMPLATE, Points, fit_similarity, share_outside
from .detectors import Face
from .photos import Pixels

MIN_EYE_DISTANCE = 18.0
"""Half of `GOOD_EYE_DISTANCE`: below it no likeness can be expected."""
GOOD_EYE_DISTANCE = 35.0
"""The network sees the face at 112 x 112, where the eyes are 35 pixels apart: below that it could use detail that is not there."""
LOW_SCORE = 0.65
LOW_FRONTALITY = 0.5
LOW_SHARPNESS = 0.15
_FINE = 112
"""Side of the crop as the network sees it."""
MAX_OUTSIDE = 0.2
"""Share of the crop that may lie outside of the photograph without a warning."""
MAX_MISALIGNMENT = 40.0
"""Mean distance of the landmarks of a crop said to be aligned from `TEMPLATE`, pixels; people differ by 10, detectors by 15."""


def check_face(name: str, face: Face, image: Pixels, factor: int = 1) -> list[str]:
    """Warnings about a face found in the photograph `image`, which `name` names. Raises `InvalidRequest` if it is too small.

    `factor`: how many times the photograph was reduced before; messages tell the pixels of the photograph as sent.
    """
    eyes = math.dist(*face.landmarks[:2])
    told, least, good = (f"{factor * distance:.0f}" for distance in (eyes, MIN_EYE_DISTANCE, GOOD_EYE_DISTANCE))
    if eyes < MIN_EYE_DISTANCE:
        large = "" if factor == 1 else ", in a photograph as large as this one"
        cure = "use a photograph with more pixels of the face" if factor == 1 else "crop the photograph to the person"
        raise InvalidRequest(
            f"{name}: the face is too small: its eyes are {told} pixels apart, at least {least} are needed "
            f"and {good} are good{large}; {cure}"
        )
    return [f"{name}: {text}" for text in doubts_of_face(face, image, factor).values()]


def doubts_of_face(face: Face, image: Pixels, factor: int = 1) -> dict[str, str]:
    """What may cost likeness: measure (`eye_distance`, `score`, `frontality`, `outside`) -> what is wrong, and the cure.

    Arguments as of `check_face`.
    """
    eyes, frontality = math.dist(*face.landmarks[:2]), measure_frontality(face.landmarks)
    height, width = image.shape[:2]
    outside = share_outside(fit_similarity(face.landmarks, TEMPLATE), width, height)
    told, good = (f"{factor * distance:.0f}" for distance in (eyes, GOOD_EYE_DISTANCE))
    doubts = {
        "eye_distance": (eyes < GOOD_EYE_DISTANCE, f"the face is small (eyes {told} pixels apart); {good} are good"),
        "score": (
            face.score < LOW_SCORE,
            f"the face is doubtful (score {face.score:.2f}); use a sharp, frontal, well-lit photograph",
        ),
        "frontality": (
            frontality < LOW_FRONTALITY,
            f"the face is turned far aside (frontality {frontality:.2f}); use a frontal photograph",
        ),
        "outside": (
            outside > MAX_OUTSIDE,
            f"{outside:.0%} of the face crop lies outside the photograph; leave more room around the head",
        ),
    }
    return {measure: text for measure, (doubtful, text) in doubts.items() if doubtful}


def doubts_of_sharpness(sharpness: float) -> dict[str, str]:
    """The same of the measure `sharpness`, of the crop."""
    if sharpness >= LOW_SHARPNESS:
        return {}
    return {"sharpness": f"the face is blurred (sharpness {sharpness:.2f} of {LOW_SHARPNESS}); use a sharper photograph"}


def check_aligned(name: str, face: Face | None) -> list[str]:
    """Warnings about a crop that the caller aligned, from what is seen in it."""
    if face is None:
        return [f"{name}: no face was seen in the aligned crop; check it, or leave out face_aligned to have the face found"]
    error = float(np.linalg.norm(face.landmarks - TEMPLATE, axis=1).mean())
    if error > MAX_MISALIGNMENT:
        off = f"eyes, nose and mouth are {error:.0f} pixels off their places on average"
        return [f"{name}: the crop is not aligned: {off}; leave out face_aligned to have the face found"]
    return []


def check_turned(name: str, degrees: int) -> list[str]:
    """The warning about an aligned crop whose face stands upright only after a turn, counter-clockwise."""
    return [f"{name}: the crop is not upright; turn it by {degrees} degrees to the left, or leave out face_aligned"]


def check_sharpness(name: str, sharpness: float) -> list[str]:
    """A warning about a blurred crop."""
    return [f"{name}: {text}" for text in doubts_of_sharpness(sharpness).values()]


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


def measure_sharpness(crop: Pixels) -> float:
    """Energy of the finest detail that the network can see, relative to detail of twice the size.

    Of the face within the aligned crop ([448, 448, 3]), in grey: variance of the Laplacian at 112 x 112 over that at 56 x 56.
    Unlike the variance alone, this does not depend on beards, make-up and light. Measured: 0.3 to 0.6 for sharp faces, 0.12 to
    0.15 after a Gaussian blur of 4 pixels of 448; a flat picture gives 0.
    """
    colours = cv2.resize(crop.astype(np.float32), (_FINE, _FINE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY) / np.float32(255)
    fine, coarse = _detail(grey, _FINE), _detail(grey, _FINE // 2)
    return fine / coarse if coarse > 1e-9 else 0.0


def _detail(grey: NDArray[Any], side: int) -> float:
    small = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
    face = small[int(0.3 * side) : int(0.9 * side), int(0.2 * side) : int(0.8 * side)]
    return float(cv2.Laplacian(face, cv2.CV_32F).var())
