"""A folder of real photographs and captions in place of the rendered world.

Layout: one folder per person; in it at least two pictures, each with a text file of the same stem (the caption) and, where the
landmarks are known, a `.json` of five [x, y] pixels. Without landmarks the picture must be an aligned, square face crop already.
Of rows that are missing to a full set, pictures repeat, so that every person has the same number.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import TrainingError
from ..world.canvas import Image
from .crops import aligned_crop, encoder_view
from .dataset import PICTURES, VIEW, Pictures

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_LAYOUT = "<person>/<picture>.png and .txt"


def read_folder(folder: Path, size: int) -> Pictures:
    """Pictures, crops and captions of every person in `folder`. Raises `TrainingError` where one is incomplete."""
    if not folder.is_dir():
        raise TrainingError(f"photographs: {folder} is no folder; expected {_LAYOUT}")
    pictures: list[Image] = []
    crops: list[Image] = []
    captions: list[str] = []
    for person in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(file for file in person.iterdir() if file.suffix.lower() in _SUFFIXES)
        if len(files) < 2:
            raise TrainingError(f"photographs: {person} needs two pictures of the person at least, got {len(files)}; add some")
        for k in range(PICTURES):
            file = files[k % len(files)]
            image = _read(file)
            crops.append(encoder_view(_crop(file, image), VIEW))
            pictures.append(_square(image, size))
            captions.append(_caption(file))
    if not pictures:
        raise TrainingError(f"photographs: {folder} holds no folders of persons; expected {_LAYOUT}")
    return Pictures("photographs", np.stack(pictures), np.stack(crops), tuple(captions))


def _read(file: Path) -> Image:
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        raise TrainingError(f"photographs: {file} is not a picture that can be read; convert it to PNG")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _square(image: Image, size: int) -> Image:
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    part = image[top : top + side, left : left + side]
    return np.asarray(cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def _crop(file: Path, image: Image) -> Image:
    marks = file.with_suffix(".json")
    if not marks.exists():
        return _square(image, VIEW * 4)
    try:
        landmarks: NDArray[np.float32] = np.array(json.loads(marks.read_text(encoding="utf-8")), np.float32)
        return aligned_crop(image, landmarks)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"photographs: {marks} must hold five [x, y] pairs of pixels: {error}") from error


def _caption(file: Path) -> str:
    text = file.with_suffix(".txt")
    if not text.exists():
        raise TrainingError(f"photographs: {file} has no caption; write one sentence into {text}")
    return text.read_text(encoding="utf-8").strip()
