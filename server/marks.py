"""The keys by which a server marks pictures, checks consent and signs its log: own ones are made at the first start, all are tried before
anything is served."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from faceclip_serving import __version__
from faceclip_serving.audit.consent import Rule
from faceclip_serving.audit.keys import make_missing, make_secret
from faceclip_serving.audit.log import AuditLog
from faceclip_serving.contract.placements import Placement
from faceclip_serving.contract.settings import VARIABLE, Settings, marks_wanted, resolve
from faceclip_serving.marking.authority import (
    ROOT,
    SELF_MADE,
    WATERMARK_KEY,
    AlreadyThere,
    Made,
    make,
)
from faceclip_serving.marking.marker import CREDENTIALS, WATERMARK, Marker


def prepare(placements: Mapping[str, Placement], told: Mapping[str, Mapping[str, str]]) -> None:
    """Makes what is missing of each deployment's own keys, and tries all. Raises `KeysError`.

    `told`: as `read_orders` returns it.
    """
    for name, placement in placements.items():
        settings = resolve(placement, name, environment={VARIABLE: json.dumps(told)})
        _make_own(settings)
        Marker.from_settings(settings, name, __version__)
        make_missing(settings)
        Rule.from_settings(settings)
        if (log := AuditLog.from_settings(settings)) is not None:
            log.close()


def _make_own(settings: Settings) -> None:
    folder, wanted = Path(settings["marks_folder"]), marks_wanted(settings)
    if CREDENTIALS in wanted and not settings["certificate"] and not (folder / ROOT).exists():
        with contextlib.suppress(AlreadyThere):
            _tell(make(folder, SELF_MADE))
    if WATERMARK in wanted and not settings["watermark_key"] and not (folder / WATERMARK_KEY).exists():
        make_secret(folder, WATERMARK_KEY)


def _tell(made: Made) -> None:
    print(
        f"made keys and a certificate of its own for marks in {made.folder}, root {made.root_sha256}; by"
        " `python -m server credentials init --organisation NAME --replace` it names you",
        file=sys.stderr,
    )
