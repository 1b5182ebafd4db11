"""A denoiser that sleeps: `denoiser/1/model.py` of the repository that `sleeping.py` makes.

What it predicts for a row depends on all that the row holds and on nothing else, so a picture shows whether any bit of any of its rows
was another request's.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from faceclip_serving.contract.tensors import Array

SLEEP_FILE = "sleep.json"
"""Beside this file: the seconds of a call, and of each of its rows."""


def predict(inputs: Mapping[str, Array], call_s: float, row_s: float) -> dict[str, Array]:
    """`noise_pred`, after a sleep: the row's latents, moved by the checksum of everything else in the row."""
    latents = inputs["latents"]
    others = [np.ascontiguousarray(array) for name, array in sorted(inputs.items()) if name != "latents"]
    time.sleep(call_s + row_s * len(latents))
    checksums = [zlib.crc32(b"".join(array[row].tobytes() for array in others)) for row in range(len(latents))]
    moved = np.array(checksums, np.float64) / 2**32 - 0.5
    return {"noise_pred": (0.5 * latents + moved.reshape(-1, 1, 1, 1)).astype(np.float32)}


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        from faceclip_serving.models import adapter  # here, since whoever makes a repository has no Triton

        setup = adapter.setup(args)
        self._signature, self._respond = setup.signature, adapter.respond
        self._predict = partial(predict, **json.loads((setup.folder / SLEEP_FILE).read_text()))

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._respond(request, self._signature, self._predict) for request in requests]
