"""The audit log: what was asked, decided and made, in a chain that nobody changes unnoticed. Writes it; `verify` reads it.

A folder of SQLite files, one for each day (UTC). A record's body is canonical JSON: its number `seq`, the hash of the record before
it, `prev`, and what is recorded; the hash of a record is the SHA-256 of its body. So a record depends on all before it, over days too.
Each is signed by number and hash: that is its receipt, which whoever made the request keeps. The chain shows what was changed, taken
out or moved; `head.json` shows that the end was cut off, and receipts show it even where somebody restores an older `head.json`.

What `append` has returned is on the disk (`synchronous=FULL`), whatever happens to the process or the machine. Records that come
together share a write. Several processes may write to one folder. Knows nothing of what is recorded.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..contract.settings import Settings
from ..marking.authority import KeysError
from .keys import AUDIT_KEY, canonical, fingerprint, own, read_private, sign

HEAD = "head.json"
BEGINNING = "0" * 64
"""`prev` of the first record."""
PURGE = "purge"
"""`event` of the record that says which days were deleted."""
_ENDING, _LOCK, _SECTOR = ".sqlite", "lock", 512
_DAY = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])\.sqlite")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS records
  (seq INTEGER PRIMARY KEY, body TEXT NOT NULL, hash TEXT NOT NULL, signature TEXT NOT NULL, key TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON records BEGIN SELECT RAISE(ABORT, 'records are never changed'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON records BEGIN SELECT RAISE(ABORT, 'records are never deleted'); END;
"""

Receipt = dict[str, Any]
"""`seq` and `head`, the number and hash of a record; `signature` of the two, hexadecimal; `key`, the fingerprint of whose it is."""


class AuditError(RuntimeError):
    """What must be recorded could not be: the request is not answered."""


def segments(folder: Path) -> list[Path]:
    """The files of the days, the oldest first."""
    return sorted(path for path in folder.glob(f"*{_ENDING}") if _DAY.fullmatch(path.name))


def day_of(segment: Path) -> date:
    """The day (UTC) of a segment."""
    return date.fromisoformat(segment.stem)


def signed_content(seq: int, head: str) -> dict[str, Any]:
    """What a receipt's signature is over."""
    return {"head": head, "seq": seq}


def read_segment(path: Path) -> Iterator[tuple[int, str, str, str, str]]:
    """Its rows in their order: number, body, hash, signature, key. Raises `sqlite3.Error`."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        yield from connection.execute("SELECT seq, body, hash, signature, key FROM records ORDER BY seq")


@dataclass(eq=False)
class _Entry:
    """A record on its way."""

    content: bytes
    receipt: Receipt | None = None
    error: str | None = None
    """In words: an error's frames hold the entry, and the arrays of whoever waits for it."""

    @property
    def done(self) -> bool:
        return self.receipt is not None or self.error is not None


class AuditLog:
    """Appends records. May be used by several threads, and by several processes over one folder."""

    def __init__(
        self, folder: Path, key: Ed25519PrivateKey, days: int = 0, today: Callable[[], date] = lambda: datetime.now(UTC).date()
    ) -> None:
        """`days`: how many are kept besides today's; 0: all. Raises `KeysError` where the folder cannot be written to."""
        self.folder = folder
        self._key, self._days, self._today = key, days, today
        self._key_name = fingerprint(key.public_key())
        self._purged_on: date | None = None
        self._waiting: list[_Entry] = []
        self._changed, self._busy = threading.Condition(), False
        self._connection: sqlite3.Connection | None = None
        self._segment: Path | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            with self._alone():
                self._open(self._current())
        except (OSError, sqlite3.Error) as error:
            raise KeysError(f"audit_folder: {folder} cannot be written to ({error}); name another folder") from None

    @classmethod
    def from_settings(cls, settings: Settings) -> AuditLog | None:
        """None: there is no log. Raises `KeysError`."""
        if not settings["audit_folder"]:
            return None
        key = read_private(own(settings, "audit_key", AUDIT_KEY), "audit_key")
        return cls(Path(settings["audit_folder"]), key, settings["audit_days"])

    def append(self, record: Mapping[str, Any]) -> Receipt:
        """Writes a record, and waits until it is on the disk. Raises `AuditError`.

        `record`: a JSON object; whole numbers below 2^53.
        """
        try:
            entry = _Entry(canonical(record))
        except ValueError as error:
            raise AuditError(f"audit: expected what JSON can hold, got something else ({error})") from None
        with self._changed:
            self._waiting.append(entry)
        self._written_with(entry)
        if entry.receipt is None:
            raise AuditError(f"audit: nothing is answered that cannot be recorded ({entry.error})")
        return entry.receipt

    def purge(self, before: date) -> list[str]:
        """Deletes the days before that one, but never the last; their names. The log says so itself. Raises `AuditError`."""
        try:
            with self._own_turn(), self._alone():
                return self._purge(before, self._current())
        except (OSError, sqlite3.Error) as error:
            raise AuditError(f"audit: {self.folder}: {error}") from None

    def close(self) -> None:
        """Nothing is appended any more."""
        with self._own_turn():
            self._leave()
            os.close(self._lock)

    def _written_with(self, entry: _Entry) -> None:
        """Returns when the entry is done: by this thread, which then writes for all who wait, or by another one before."""
        with self._changed:
            self._changed.wait_for(lambda: entry.done or not self._busy)
            if entry.done:
                return
            self._busy = True
            batch, self._waiting = self._waiting, []
        try:
            self._write(batch)
        finally:
            self._free()

    @contextlib.contextmanager
    def _own_turn(self) -> Iterator[None]:
        """No other thread writes meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy)
            self._busy = True
        try:
            yield
        finally:
            self._free()

    def _free(self) -> None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()

    def _write(self, batch: Sequence[_Entry]) -> None:
        try:
            with self._alone():
                current, today = self._current(), self._today()
                receipts = self._append(current, [entry.content for entry in batch])
                if self._days and self._purged_on != today:
                    self._purge(today - timedelta(days=self._days), current)
                    self._purged_on = today
        except Exception as error:  # noqa: BLE001 - whatever it is, none of these is recorded for certain
            self._leave()
            for entry in batch:
                entry.error = str(error)
        else:
            for entry, receipt in zip(batch, receipts, strict=True):
                entry.receipt = receipt

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process writes meanwhile."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _current(self) -> Path:
        """Today's segment, or a later one where clocks ran ahead."""
        days = [name for name in os.listdir(self.folder) if _DAY.fullmatch(name)]
        return self.folder / max([*days, f"{self._today().isoformat()}{_ENDING}"])

    def _append(self, segment: Path, contents: Sequence[bytes]) -> list[Receipt]:
        connection = self._open(segment)
        receipts: list[Receipt] = []
        with connection:  # commits, or takes all of it back
            connection.execute("BEGIN IMMEDIATE")
            seq, head = self._last(segment)
            rows = []
            for content in contents:
                seq += 1
                body = b'{"prev":"%s","record":%s,"seq":%d}' % (head.encode(), content, seq)  # canonical as its parts are
                head = hashlib.sha256(body).hexdigest()
                signature = sign(self._key, signed_content(seq, head)).hex()
                rows.append((seq, body.decode(), head, signature, self._key_name))
                receipts.append({"seq": seq, "head": head, "signature": signature, "key": self._key_name})
            connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
        _write_head(self.folder / HEAD, receipts[-1])
        return receipts

    def _last(self, segment: Path) -> tuple[int, str]:
        """Number and hash of the last record of all."""
        found = self._open(segment).execute("SELECT seq, hash FROM records ORDER BY seq DESC LIMIT 1").fetchone()
        earlier = [path for path in segments(self.folder) if path < segment]
        while found is None and earlier:
            with contextlib.closing(sqlite3.connect(f"file:{earlier.pop()}?mode=ro", uri=True)) as connection:
                found = connection.execute("SELECT seq, hash FROM records ORDER BY seq DESC LIMIT 1").fetchone()
        return found or (0, BEGINNING)

    def _purge(self, before: date, current: Path) -> list[str]:
        old = [path for path in segments(self.folder) if day_of(path) < before and path != current]
        if not old:
            return []
        last = [row for path in old for row in read_segment(path)][-1:]
        told = {
            "event": PURGE,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "days": [path.stem for path in old],
            "through_seq": last[0][0] if last else 0,
            "through_head": last[0][2] if last else BEGINNING,
        }
        self._append(current, [canonical(told)])
        for path in old:
            for each in (path, *path.parent.glob(f"{path.name}-*")):
                each.unlink(missing_ok=True)
        return [path.stem for path in old]

    def _open(self, segment: Path) -> sqlite3.Connection:
        if self._connection is None or self._segment != segment or not segment.exists():
            self._leave()
            os.close(os.open(segment, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(segment, timeout=30, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(_SCHEMA)
            self._segment = segment
        return self._connection

    def _leave(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None


def _write_head(path: Path, receipt: Receipt) -> None:
    """In place, since a new file takes longer than all else: what fits into a sector of a disk is written whole or not at all."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(file, json.dumps(receipt).encode().ljust(_SECTOR - 1) + b"\n", 0)
    finally:
        os.close(file)
