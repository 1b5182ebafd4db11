"""How a server's models mark pictures, and read marks for whoever asks: the room `marking`, with the settings of a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2

from .. import __version__
from ..contract.errors import InvalidRequest
from ..contract.models import PICTURE, VERIFIED
from ..contract.request import picture_file
from ..contract.settings import Settings
from ..contract.tensors import Array, json_tensor
from ..contract.variant import Variant
from ..marking.marker import Marker
from ..marking.verify import UnreadablePicture
from ..marking.verify import verify as verify_file

SYSTEM = "faceclip-triton"


def marker_of(settings: Settings, variant: Variant) -> Marker:
    """For a model's process. Raises `KeysError`, by which the model does not start."""
    cv2.setNumThreads(1)  # a mark is soon put on; the other cores are the denoiser's
    return Marker.from_settings(settings, f"{SYSTEM} {variant.name}", __version__)


def verify(marker: Marker, checks: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What a picture bears; without one, what this server puts on its own, and by which `checks`. Raises `InvalidRequest`."""
    if PICTURE.name not in arrays:
        return {VERIFIED.name: json_tensor({"marks": marker.told(), "checks": checks})}
    content = arrays[PICTURE.name].ravel()[0]
    file = picture_file(PICTURE.name, content.encode() if isinstance(content, str) else bytes(content))
    try:
        anchors = marker.signer.anchors if marker.signer is not None else ""
        report = verify_file(file, anchors, marker.watermark.read if marker.watermark is not None else None)
    except UnreadablePicture as error:
        raise InvalidRequest(f"{PICTURE.name}: {error}") from None
    return {VERIFIED.name: json_tensor(report.as_json())}
