"""Consents that were taken back: a file of JSON lines, each with `consent`, the id of a record, or `subject`, all of a person's.

A list that is missing is none that is empty: somebody may have moved it, or a share may be away. So an empty one is a file too.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..marking.authority import KeysError

_CURE = "put it back; only where nobody has revoked yet, make an empty file there"
KINDS = {"consent": "id", "subject": "subject"}
"""Key of a line -> the entry of a record that it is compared with."""


class Revoked:
    """The list as it is now: it is read again when it has changed. May be asked by any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._version: tuple[int, ...] | None = None
        self._known: dict[str, set[str]] = {}

    def version(self) -> tuple[int, ...] | None:
        """Another one when the file has changed; None: there is none."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeysError(f"revoked: {self._path}: {error.strerror}; without the list no consent can be trusted") from None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def has(self, record: Mapping[str, Any]) -> bool:
        """Whether a record of consent was revoked. Raises `KeysError` where there is no list, or it cannot be read."""
        with self._lock:
            version = self.version()
            if version is None:
                raise KeysError(f"revoked: {self._path} is missing; without it no consent can be trusted: {_CURE}")
            if version != self._version:
                self._known, self._version = self._read(), version
            return any(record[entry] in self._known[kind] for kind, entry in KINDS.items())

    def add(self, kind: str, name: str) -> None:
        """Puts a line behind the others. `kind`: of `KINDS`. Raises `KeysError`, also where there is no list yet."""
        line = json.dumps({kind: name, "time": datetime.now(UTC).isoformat(timespec="seconds")}) + "\n"
        try:
            with open(os.open(self._path, os.O_WRONLY | os.O_APPEND), "a") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except FileNotFoundError:
            raise KeysError(f"revoked: {self._path} is missing, so nothing was revoked: {_CURE}, then revoke again") from None
        except OSError as error:
            raise KeysError(f"revoked: {self._path}: {error.strerror}; nothing was revoked") from None

    def _read(self) -> dict[str, set[str]]:
        known: dict[str, set[str]] = {kind: set() for kind in KINDS}
        try:
            lines = self._path.read_text().splitlines()
        except (OSError, ValueError) as error:
            raise KeysError(f"revoked: {self._path} cannot be read ({error}); without it no consent can be trusted") from None
        for number, line in enumerate(lines, 1):
            try:
                told = json.loads(line)
                (kind,) = told.keys() & KINDS.keys()
                if not isinstance(told[kind], str) or not told[kind]:
                    raise ValueError("names nobody")
                known[kind].add(told[kind])
            except (ValueError, AttributeError):
                raise KeysError(
                    f"revoked: {self._path}, line {number}: expected a JSON object with one of {', '.join(KINDS)}, a name;"
                    " `python -m server consent revoke` writes such lines"
                ) from None
        return known
