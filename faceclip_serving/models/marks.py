"""How a server's models mark pictures, and read marks for whoever asks: the room `marking`, with the settings of a deployment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2

from .. import __version__
from ..audit.consent import Rule
from ..audit.log import overdue
from ..checks.policy import of_settings
from ..contract.errors import InvalidRequest
from ..contract.models import PICTURE, VERIFIED
from ..contract.request import picture_file
from ..contract.settings import Settings
from ..contract.tensors import Array, json_tensor
from ..contract.variants.variant import Variant
from ..marking.marker import Marker
from ..marking.verify import UnreadablePicture
from ..marking.verify import verify as verify_file

SYSTEM = "faceclip-triton"


def marker_of(settings: Settings, variant: Variant) -> Marker:
    """For a model's process. Raises `KeysError`, by which the model does not start."""
    cv2.setNumThreads(1)  # a mark is soon put on; the other cores are the denoiser's
    return Marker.from_settings(settings, f"{SYSTEM} {variant.name}", __version__, {"licence": variant.licence.text})


def rules_of(settings: Settings, variant: Variant) -> Callable[[], dict[str, Any]]:
    """Tells what holds for requests to this server, for status. Raises `KeysError` at once."""
    checks, consent = of_settings(settings).told(), Rule.from_settings(settings).told()
    licence = variant.licence.as_json()
    return lambda: {"checks": checks, "consent": consent, "audit": _audit(settings), "licence": licence}


def _audit(settings: Settings) -> str:
    if not settings["audit_folder"]:
        return "off"
    kept = overdue(Path(settings["audit_folder"]), settings["audit_days"], datetime.now(UTC).date())
    return f"on; kept longer than audit_days: {', '.join(kept)}" if kept else "on"


def verify(marker: Marker, arrays: Mapping[str, Array], rules: Callable[[], Mapping[str, Any]] = dict) -> dict[str, Array]:
    """What a picture bears; without one, what this server puts on its own, and its `rules`. Raises `InvalidRequest`."""
    if PICTURE.name not in arrays:
        return {VERIFIED.name: json_tensor({"marks": marker.told(), **rules()})}
    content = arrays[PICTURE.name].ravel()[0]
    file = picture_file(PICTURE.name, content.encode() if isinstance(content, str) else bytes(content))
    try:
        anchors = marker.signer.anchors if marker.signer is not None else ""
        report = verify_file(file, anchors, marker.watermark.read if marker.watermark is not None else None)
    except UnreadablePicture as error:
        raise InvalidRequest(f"{PICTURE.name}: {error}") from None
    return {VERIFIED.name: json_tensor(report.as_json())}
