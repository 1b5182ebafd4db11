"""Finding faces in one picture at its own scale, by OpenCV's YuNet, whose file lies beside this one.

A detector is a callable: RGB picture -> faces, in the picture's pixels. It knows neither photographs, nor which face is wanted,
nor alignment; `search` looks over scales and turns with it. It holds an OpenCV object that works in place and guards it with a lock:
one may be shared by threads, which then take turns.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from .alignment import Points
from .photos import Pixels

MODEL = Path(__file__).parent / "face_detection_yunet_2023mar.onnx"
"""Of OpenCV Zoo, MIT: LICENSE.yunet."""


class Box(NamedTuple):
    """Left, top, width and height in pixels."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Face:
    box: Box
    landmarks: Points
    """[5, 2], in the order of `TEMPLATE`."""
    score: float
    """In (0, 1]; from 0.6 up the detector is sure. Not a probability."""


class Detector(Protocol):
    @property
    def name(self) -> str: ...

    def __call__(self, image: Pixels) -> list[Face]: ...


class YuNet:
    """Reliable for faces 10 to 350 pixels wide; in larger ones it sees small faces that are not there."""

    name = "yunet"
    min_score = 0.6
    min_side = 32
    """Pixels of the picture. Smaller ones hold no usable face, and the network answers them with numbers that mean nothing."""

    def __init__(self, model: Path = MODEL) -> None:
        """Raises ValueError if the file is not OpenCV's YuNet."""
        try:
            self._network = cv2.FaceDetectorYN.create(str(model), "", (320, 320), score_threshold=self.min_score)
        except cv2.error as error:
            raise ValueError(
                f"detector model '{model}': expected OpenCV's YuNet in ONNX, which this is not ({error.err})"
            ) from None
        self._lock = threading.Lock()

    def __call__(self, image: Pixels) -> list[Face]:
        height, width = image.shape[:2]
        if min(height, width) < self.min_side:
            return []
        with self._lock:
            self._network.setInputSize((width, height))
            _, rows = self._network.detect(np.ascontiguousarray(image[..., ::-1]))
        rows = [] if rows is None else [row for row in rows if np.abs(row).max() < 2 * max(height, width)]  # nan compares false
        # A row is x, y, width, height, five points, score. Its points start with the subject's right eye and go on to the right
        # corner of the mouth: as seen in the picture these are the left ones, so the order is the template's.
        return [
            Face(Box(*map(float, row[:4])), row[4:14].reshape(5, 2).astype(np.float64), min(float(row[14]), 1.0))
            for row in rows
        ]
