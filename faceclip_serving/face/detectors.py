"""Finding faces in one picture at its own scale: YuNet from a model file, or the Haar cascades that OpenCV brings along.

A detector is a callable: RGB picture -> faces, in the picture's pixels. It knows neither photographs, nor which face is wanted,
nor alignment; `faces` searches over scales and turns with it. Detectors hold OpenCV objects that work in place, so each guards
itself with a lock: one may be shared by threads, which then take turns.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from .alignment import TEMPLATE, Points, apply, fit_similarity
from .photos import Pixels

DETECTOR_FILE = "face_detection_yunet.onnx"
"""OpenCV's YuNet in the folder of the `prepare` model."""


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

    @property
    def caution(self) -> str:
        """What a user of this detector should know; empty if nothing."""

    def __call__(self, image: Pixels) -> list[Face]: ...


def make_detector(model: Path | None = None) -> Detector:
    """YuNet with the given model file, or the embedded detector. Raises ValueError if the file cannot be used."""
    return Haar() if model is None else YuNet(model)


def detector_in(folder: Path) -> Detector:
    """YuNet where its file is in the folder of the `prepare` model, else the embedded detector."""
    model = folder / DETECTOR_FILE
    return make_detector(model if model.exists() else None)


class YuNet:
    """OpenCV's YuNet. Reliable for faces 10 to 350 pixels wide; in larger ones it sees small faces that are not there."""

    name, caution = "yunet", ""
    min_score = 0.6

    def __init__(self, model: Path) -> None:
        if not model.is_file():
            raise ValueError(f"detector model '{model}': no such file; download OpenCV's face_detection_yunet, or leave it out")
        try:
            self._network = cv2.FaceDetectorYN.create(str(model), "", (320, 320), score_threshold=self.min_score)
        except cv2.error as error:
            raise ValueError(
                f"detector model '{model}': expected OpenCV's YuNet in ONNX, which this is not ({error.err})"
            ) from None
        self._lock = threading.Lock()

    def __call__(self, image: Pixels) -> list[Face]:
        with self._lock:
            self._network.setInputSize((image.shape[1], image.shape[0]))
            _, rows = self._network.detect(np.ascontiguousarray(image[..., ::-1]))
        # A row is x, y, width, height, five points, score. Its points start with the subject's right eye and go on to the right
        # corner of the mouth: as seen in the picture these are the left ones, so the order is the template's.
        return [
            Face(Box(*map(float, row[:4])), row[4:14].reshape(5, 2).astype(np.float64), min(float(row[14]), 1.0))
            for row in ([] if rows is None else rows)
        ]


class Haar:
    """OpenCV's bundled Viola-Jones cascades: an upright frontal face, seen by two of them, then an eye in each expected place.

    With both eyes found, the five points are the template's, laid onto the eyes; otherwise the template's, laid into the box.
    The sizes below were measured on aligned faces; widths are in units of the face box's.
    """

    name = "haar"
    caution = "the embedded detector was used: its five points are estimates; configure a YuNet model for exact ones"

    min_face = 32
    """Pixels. The cascade's window is 20, but below 32 its answers are noise."""
    min_hits = 4
    """Overlapping hits of the first cascade that make a candidate."""
    hits_scale = 30.0
    """Hits of both cascades that give score 1 - 1/e, or twice as many where the eyes are not seen. Over synthetic turns, scales and
    blurs, faces were given 0.66 to 0.99; of 240 pictures of noise, scanned in 7 ways each, one thing was given more than 0.57."""
    slack = 0.25
    """How far, and by how much in size, the second cascade's box may lie off the first one's."""
    template_box = Box(37.0, 68.0, 370.0, 370.0)
    """Where the cascade sees the box of an aligned face; it errs by 5 pixels in place and 10 % in width."""
    eye_search = 0.44
    eye_width = (0.16, 0.34)
    """Side of the square searched for an eye, and the width of an eye's box."""
    min_eye_hits = 3

    def __init__(self) -> None:
        # Of the frontal cascades `alt` has the fewest false alarms, and misses no more than the others; `alt2` is next.
        self._face_cascade = _cascade("haarcascade_frontalface_alt.xml")
        self._second_cascade = _cascade("haarcascade_frontalface_alt2.xml")
        self._eye_cascade = _cascade("haarcascade_eye.xml")
        self._lock = threading.Lock()

    def __call__(self, image: Pixels) -> list[Face]:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        smallest = (self.min_face, self.min_face)
        with self._lock:
            boxes, hits = self._face_cascade.detectMultiScale2(grey, 1.1, self.min_hits, minSize=smallest)
            return [self._face(grey, Box(*map(float, box)), int(count)) for box, count in zip(boxes, hits, strict=True)]

    def _face(self, grey: NDArray[Any], box: Box, hits: int) -> Face:
        scale = box.width / self.template_box.width
        points = (TEMPLATE - self.template_box[:2]) * scale + box[:2]
        evidence = (hits + self._second_opinion(grey, box)) / self.hits_scale
        eyes = [self._eye(grey, center, box.width) for center in points[:2]]
        if eyes[0] is not None and eyes[1] is not None:
            points = apply(fit_similarity(TEMPLATE[:2], np.array(eyes)), TEMPLATE)
        else:
            evidence /= 2
        return Face(box, points, 1 - math.exp(-evidence))

    def _second_opinion(self, grey: NDArray[Any], box: Box) -> int:
        """Hits of the second cascade on the same face."""
        reach = self.slack * box.width
        left, top = max(round(box.x - reach), 0), max(round(box.y - reach), 0)
        window = grey[top : round(box.y + box.height + reach), left : round(box.x + box.width + reach)]
        least, most = (round(box.width * factor) for factor in (1 - self.slack, 1 + self.slack))
        _, hits = self._second_cascade.detectMultiScale2(window, 1.1, 1, minSize=(least, least), maxSize=(most, most))
        return max(map(int, hits), default=0)

    def _eye(self, grey: NDArray[Any], center: Points, face_width: float) -> Points | None:
        """The place of the eye expected at `center` ([2]), if one is seen."""
        side = round(self.eye_search * face_width)
        left, top = np.maximum(np.round(center - side / 2), 0).astype(int)
        window = grey[top : top + side, left : left + side]
        least, most = (max(round(width * face_width), 1) for width in self.eye_width)
        if min(window.shape) < least:
            return None
        boxes, hits = self._eye_cascade.detectMultiScale2(
            window, 1.05, self.min_eye_hits, minSize=(least, least), maxSize=(most, most)
        )
        if len(boxes) == 0:
            return None
        x, y, width, height = boxes[int(np.argmax(hits))]
        return np.array([left + x + width / 2, top + y + height / 2])


def _cascade(file: str) -> cv2.CascadeClassifier:
    path = Path(cv2.__file__).parent / "data" / file
    cascade = cv2.CascadeClassifier(str(path))
    if cascade.empty():
        raise ValueError(f"detector cascade '{path}': cannot be read; install opencv-python-headless again")
    return cascade
