"""A denoiser that sleeps: `sampler/1/model.py` of the repository that `sleeping.py` makes, over the sampler's own.

What it predicts for a row depends on all that the row holds and on nothing else, so a picture shows whether any bit of any of its rows
was another request's. Such pictures show nobody: a small face is said to be in the middle of each, so that `face_detail` has work.
"""

from __future__ import annotations

import importlib
import json
import time
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variants.architectures import FACE_SIZE

AWAKE = "awake"
"""The sampler's own model, as a module beside this one."""
SLEEP_FILE = "sleep.json"
"""Beside this file: the seconds of a call, and of each of its rows."""
SMALL = 0.2
"""Width of the face, of the picture's shorter side."""


def predict(inputs: Mapping[str, Array], call_s: float, row_s: float) -> dict[str, Array]:
    """`noise_pred`, after a sleep: the row's latents, moved by the checksum of everything else in the row."""
    latents = inputs["latents"]
    others = [np.ascontiguousarray(array) for name, array in sorted(inputs.items()) if name != "latents"]
    time.sleep(call_s + row_s * len(latents))
    checksums = [zlib.crc32(b"".join(array[row].tobytes() for array in others)) for row in range(len(latents))]
    moved = np.array(checksums, np.float64) / 2**32 - 0.5
    return {"noise_pred": (0.5 * latents + moved.reshape(-1, 1, 1, 1)).astype(np.float32)}


def find_faces(image: Array, detect: Any) -> list[Any]:
    """What the search finds in RGB [height, width, 3], as long as that takes; where it finds nobody, a small face in the middle."""
    from faceclip_serving.face import search
    from faceclip_serving.face.alignment import TEMPLATE
    from faceclip_serving.face.detectors import Box, Face

    height, width = image.shape[:2]
    side = SMALL * min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    points = TEMPLATE / FACE_SIZE * side + (left, top)
    return search.find_faces(image, detect) or [Face(Box(left, top, side, side), points, 1.0)]


def __getattr__(name: str) -> Any:
    """`TritonPythonModel`, the sampler's own with this denoiser. When it is asked for, since whoever makes a repository has no Triton."""
    if name != "TritonPythonModel":
        raise AttributeError(name)
    from faceclip_serving.models.components import Components
    from faceclip_serving.sampling import service

    class Sleeping(Components):
        def __init__(self, *told: Any, **named: Any) -> None:
            super().__init__(*told, **named)
            sleep = json.loads(Path(__file__).with_name(SLEEP_FILE).read_text())
            self.networks = {**self.networks, DENOISER: partial(predict, **sleep)}

    vars(service)["find_faces"] = find_faces
    awake: Any = importlib.import_module(AWAKE)
    awake.Components = Sleeping
    return awake.TritonPythonModel
