"""What the audit log is told of a request: who asked for what, by which rules it was decided, what was made. Never a text, a picture or
a feature of a face: texts and photographs by their keyed names, pictures by their hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..audit.fingerprints import perceptual_hash
from ..audit.keys import References
from ..audit.log import AuditLog, Receipt
from ..checks.policy import of_settings
from ..contract.errors import Refused, outcome
from ..contract.request import parse_one
from ..contract.tensors import Array
from ..marking.marker import Marked

if TYPE_CHECKING:
    from .adapter import Context, Setup

FOR_AUDIT = "for_audit"
"""Key of what `finish` tells the log in `details`, and a flow beside a preview; the public model takes it out."""
UNRECORDED = ("invalid", "rejected", "stopping")
"""Ends of requests that nothing was decided or made for, previews aside. There may be any number of them."""
_PROMPTS = ("prompt", "negative_prompt", "original_prompt")


class Recorder:
    """Records the requests of one public model. May be used by several threads."""

    def __init__(self, setup: Setup) -> None:
        """Raises `KeysError` and `PolicyError`."""
        self._setup = setup
        self._log = AuditLog.from_settings(setup.settings)
        self._references = References.from_settings(setup.settings)
        self._policy = of_settings(setup.settings).told()["policy"] if self._log is not None else ""

    def made(
        self, context: Context, arrays: Mapping[str, Array], details: dict[str, Any], previews: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        """The details as the caller gets them, with a receipt. `previews`: what was sent on the way, as `outputs` tells it.

        Raises `AuditError`, by which nothing more is answered.
        """
        told = details.pop(FOR_AUDIT, {})
        details["receipt"] = self._append(context, arrays, {"outcome": "ok", **told, **_seen(previews)})
        return details

    def failed(
        self, context: Context, arrays: Mapping[str, Array], error: Exception, previews: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """A request that has ended otherwise. `previews`: as above. Raises `AuditError`."""
        told: dict[str, Any] = {"outcome": outcome(error), **_seen(previews)}
        if told["outcome"] in UNRECORDED and not previews:
            return
        if isinstance(error, Refused):
            told |= {"code": error.code, **error.audit}
        self._append(context, arrays, told)

    def _append(self, context: Context, arrays: Mapping[str, Array], told: Mapping[str, Any]) -> Receipt | None:
        if self._log is None:
            return None
        setup = self._setup
        return self._log.append({
            "event": "request",
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": context.id,
            "deployment": setup.deployment,
            "model": setup.signature.name,
            "variant": setup.variant.name,
            "version": f"{__version__} {setup.digest[:12]}",
            "policy": self._policy,
            "tenant": self._text("tenant", arrays),
            **{name: self._name(name, arrays) for name in _PROMPTS if name in arrays},
            **told,
        })  # fmt: skip

    def _name(self, parameter: str, arrays: Mapping[str, Array]) -> str:
        return self._references.of_text(self._text(parameter, arrays))[0]

    def _text(self, parameter: str, arrays: Mapping[str, Array]) -> str:
        try:
            text: str = parse_one(parameter, self._setup.variant, arrays)
        except Exception:  # noqa: BLE001 - a request that was refused may hold anything
            return ""
        return text.encode(errors="replace").decode()


def _seen(previews: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"previews": list(previews)} if previews else {}


def outputs(marked: Sequence[Marked], pictures: Sequence[NDArray[np.uint8]]) -> list[dict[str, Any]]:
    """What is recorded of the files that were made. `pictures`: their pixels, [height, width, 3]."""
    return [
        {
            "sha256": hashlib.sha256(each.file).hexdigest(),
            "perceptual_hash": perceptual_hash(picture),
            **{name: each.record[name] for name in ("id", "mark_id", "manifest")},
        }
        for each, picture in zip(marked, pictures, strict=True)
    ]
