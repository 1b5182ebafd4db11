"""All marks of a picture, in their order: visible label, invisible mark, file with metadata, credentials.

The settings say which are on. What is on is told with every picture, and so is what is off.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..contract.marks import MARKS
from ..contract.settings import Settings, marks_wanted
from . import label, metadata
from .authority import CERTIFICATE, CERTIFICATE_KEY, SELF_MADE, WATERMARK_KEY, KeysError, watermark_keys
from .credentials import Claim, Signer
from .verify import MIME_TYPES
from .watermark import Tiles

if TYPE_CHECKING:
    from .trustmark import TrustMark

Pixels = NDArray[np.uint8]
"""RGB, [height, width, 3]."""
Encode = Callable[[Pixels, bytes], bytes]
"""Pixels and an XMP packet (empty: none) -> the picture's file."""
WATERMARK, METADATA, CREDENTIALS = MARKS


@dataclass(frozen=True)
class Marked:
    """A picture's file with its marks."""

    file: bytes
    record: dict[str, Any]
    """`id` of the picture, of which `mark_id` is the beginning, `mark_psnr_db`, `manifest`; null for what it does not bear."""
    seconds: float
    """Spent on marks."""


@dataclass(frozen=True)
class Marker:
    """Marks pictures as the settings of a server say. May be used by several threads."""

    system: str
    version: str
    provider: str
    watermark: Tiles | TrustMark | None
    """The invisible mark; None: it is off."""
    metadata: bool
    signer: Signer | None
    self_made: bool
    """Whether the credentials are an installation's own, which strangers do not know."""
    visible_label: str
    label_corner: str
    notes: Mapping[str, str] = field(default_factory=dict)
    """What else the credentials say of the system."""

    @classmethod
    def from_settings(cls, settings: Settings, system: str, version: str, notes: Mapping[str, str] | None = None) -> Marker:
        """`system` and `version`: of what makes the pictures; `notes`: more of it, text by text.

        Raises `KeysError` where keys cannot be used.
        """
        wanted = marks_wanted(settings)
        folder = Path(settings["marks_folder"])
        own = not settings["certificate"]
        signer = None
        if CREDENTIALS in wanted:
            signer = Signer(
                folder / CERTIFICATE if own else Path(settings["certificate"]),
                settings["certificate_key"] or str(folder / CERTIFICATE_KEY),
                settings["timestamp_url"],
            )
        mark: Tiles | TrustMark | None = None
        if WATERMARK in wanted and settings["trustmark"]:
            from .trustmark import TrustMark  # here, since the own mark needs no ONNX Runtime

            mark = TrustMark(Path(settings["trustmark"]))
        elif WATERMARK in wanted:
            keys = watermark_keys(Path(settings["watermark_key"] or folder / WATERMARK_KEY))
            mark = Tiles(keys, settings["watermark_psnr_db"])
        provider = settings["provider"] or (signer.organisation if signer is not None else SELF_MADE)
        if not provider.isprintable():
            raise KeysError(f"provider: expected printable characters, got {provider!r}")
        return cls(
            system, version, provider, mark, METADATA in wanted, signer, own,
            settings["visible_label"], settings["label_corner"], dict(notes or {}),
        )  # fmt: skip

    def mark(
        self,
        image: Pixels,
        output_format: str,
        encode: Encode,
        wanted_label: str = "none",
        inputs: Sequence[Mapping[str, str]] = (),
        parent: Mapping[str, str] | None = None,
    ) -> Marked:
        """The file of `image`, made by `encode`, with its marks. `wanted_label`: by the request. `inputs`, `parent`: see `Claim`.

        What cannot be marked or signed raises: there is no picture without.
        """
        begun = time.monotonic()
        name, mark_id, psnr_db, bound = secrets.token_hex(16), None, None, None
        shown = label.joined(self.visible_label, wanted_label)
        image = label.draw(image, shown, self.label_corner)
        if self.watermark is not None and (digits := self.watermark.id_digits(*image.shape[:2])) is not None:
            mark_id = name[:digits]
            image, psnr_db = self.watermark.embed(image, mark_id)
            bound = self.watermark.soft_binding, self.watermark.value(mark_id)
        source = metadata.GENERATED if parent is None else metadata.EDITED
        packet = metadata.packet(self.provider, name, self.system, self.version, source) if self.metadata else b""
        paused = time.monotonic()
        file = encode(image, packet)
        resumed = time.monotonic()
        manifest = None
        if self.signer is not None:
            claim = Claim(self.system, self.version, bound, shown != "none", inputs, parent, self.notes)
            file, manifest = self.signer.sign(file, MIME_TYPES[output_format], claim)
        record = {
            "id": name,
            "mark_id": mark_id,
            "mark_psnr_db": None if psnr_db is None else round(psnr_db, 1),
            "manifest": manifest,
            "visible_label": shown,
        }
        return Marked(file, record, paused - begun + time.monotonic() - resumed)

    def told(self) -> dict[str, Any]:
        """What is on, and what is off, for details and status."""
        on = {
            WATERMARK: self.watermark is not None,
            METADATA: self.metadata,
            CREDENTIALS: self.signer is not None,
            "visible_label": self.visible_label != "none",
        }
        credentials = self.signer and {
            "organisation": self.signer.organisation,
            "root_sha256": self.signer.root_sha256,
            "expires": self.signer.expires.isoformat(),
            "self_made": self.self_made,
        }
        return {
            "on": [name for name, is_on in on.items() if is_on],
            "off": [name for name, is_on in on.items() if not is_on],
            "watermark": self.watermark and self.watermark.soft_binding,
            "provider": self.provider,
            "credentials": credentials,
        }
