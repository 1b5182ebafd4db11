"""The example that all measurements draw, and how a request becomes the tensors of the public interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from export.paths import PHOTOGRAPH
from faceclip_serving.contract.parameters import PARAMETERS
from faceclip_serving.contract.tensors import Array

PHOTO = PHOTOGRAPH
PROMPT = "portrait of an astronaut, studio light"

_DTYPES = {tensor.name: tensor.dtype.numpy for tensor in PARAMETERS}


def request_tensors(prompt: str, photos: Sequence[bytes] = (), **settings: Any) -> dict[str, Array]:
    """A request's public inputs. `photos`: encoded files; `settings`: its other parameters. Raises `ValueError` for unknown ones."""
    values = {"prompt": [prompt], **({"face_images": photos} if photos else {}), **{k: [v] for k, v in settings.items()}}
    for name in values:
        if name not in _DTYPES:
            raise ValueError(f"setting: expected a parameter of the request, got '{name}'; known: {', '.join(_DTYPES)}")
    return {
        name: np.array([item.encode() if isinstance(item, str) else item for item in items], _DTYPES[name])
        for name, items in values.items()
    }
