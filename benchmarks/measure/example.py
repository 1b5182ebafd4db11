"""The example that all measurements draw, and how a request becomes the tensors of the public interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from export.paths import PHOTOGRAPH
from faceclip_serving.contract.parameters import PARAMETERS
from faceclip_serving.contract.tensors import Array, DType, bytes_tensor

PHOTO = PHOTOGRAPH
PROMPT = "portrait of an astronaut, studio light"

_DTYPES = {parameter.name: parameter.dtype for parameter in PARAMETERS}


def request_tensors(prompt: str, photos: Sequence[bytes] = (), **settings: Any) -> dict[str, Array]:
    """A request's public inputs. `photos`: encoded files; `settings`: its other parameters. Raises `ValueError` for unknown ones."""
    arrays = {"face_images": bytes_tensor(photos)} if photos else {}
    for name, value in {"prompt": prompt, **settings}.items():
        if name not in _DTYPES:
            raise ValueError(f"setting: expected a parameter of the request, got '{name}'; known: {', '.join(_DTYPES)}")
        text = _DTYPES[name] is DType.BYTES
        arrays[name] = bytes_tensor([value.encode()]) if text else np.array([value], _DTYPES[name].numpy)
    return arrays
