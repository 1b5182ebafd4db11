"""Consents that were taken back: a file of JSON lines, each with `consent`, the id of a record, or `subject`, all of a person's."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..marking.authority import KeysError

KINDS = {"consent": "id", "subject": "subject"}
"""Key of a line -> the entry of a record that it is compared with."""


class Revoked:
    """The list as it is now: it is read again when it has changed. May be asked by any thread."""

    def __init__(self, path: Path) -> None:
        """`path` need not exist."""
        self._path = path
        self._lock = threading.Lock()
        self._version: tuple[int, int] | None = None
        self._known: dict[str, set[str]] = {}

    def version(self) -> tuple[int, int] | None:
        """Another one when the file has changed; None: there is none."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeysError(f"revoked: {self._path}: {error.strerror}; without the list no consent can be trusted") from None
        return found.st_mtime_ns, found.st_size

    def has(self, record: Mapping[str, Any]) -> bool:
        """Whether a record of consent was revoked. Raises `KeysError` where the list cannot be read: nothing is let through."""
        with self._lock:
            version = self.version()
            if version != self._version:
                self._known, self._version = self._read() if version is not None else {}, version
            return any(record[entry] in self._known.get(kind, ()) for kind, entry in KINDS.items())

    def add(self, kind: str, name: str) -> None:
        """Puts a line behind the others. `kind`: of `KINDS`. Raises `KeysError`."""
        line = json.dumps({kind: name, "time": datetime.now(UTC).isoformat(timespec="seconds")}) + "\n"
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
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
                known[kind].add(str(told[kind]))
            except (ValueError, AttributeError):
                raise KeysError(
                    f"revoked: {self._path}, line {number}: expected a JSON object with one of {', '.join(KINDS)};"
                    " `python -m server consent revoke` writes such lines"
                ) from None
        return known
