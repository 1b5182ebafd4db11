"""The file of the job store: its tables, its older versions, its transactions, and its errors as ours. Blocks; one thread at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...own import own_file
from ..failures import StoreUnwritableError

SCHEMA = 2
_TABLES = """
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, tenant TEXT NOT NULL, kind TEXT NOT NULL,
  priority TEXT NOT NULL, model TEXT, webhook_url TEXT, idempotency_key TEXT, digest TEXT NOT NULL,
  status TEXT NOT NULL, created REAL NOT NULL, started REAL, ended REAL, deadline REAL NOT NULL, expires REAL,
  attempts INTEGER NOT NULL DEFAULT 0, losses INTEGER NOT NULL DEFAULT 0, swept INTEGER NOT NULL DEFAULT 0, result TEXT, error TEXT,
  pictures INTEGER NOT NULL, UNIQUE (owner, idempotency_key)
);
CREATE INDEX jobs_by_status ON jobs (status);
CREATE INDEX jobs_by_owner ON jobs (owner, number);
CREATE INDEX jobs_by_expiry ON jobs (expires) WHERE expires IS NOT NULL;
CREATE TABLE deliveries (job TEXT PRIMARY KEY, url TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL);
CREATE INDEX deliveries_by_due ON deliveries (due);
CREATE INDEX jobs_by_day ON jobs (owner, created);
"""
_OLDER = {
    1: "ALTER TABLE jobs ADD COLUMN pictures INTEGER NOT NULL DEFAULT 0; CREATE INDEX jobs_by_day ON jobs (owner, created);",
}
"""Version -> what makes the next one of it. Of version 1, pictures were counted elsewhere, when a job was taken."""
_UNWRITABLE = {"SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_NOMEM", "SQLITE_PERM"}


def opened(file: Path) -> sqlite3.Connection:
    """SQLite in WAL mode, which keeps what was committed (`synchronous=FULL`). Raises `StoreUnwritableError`, of a newer version too."""
    own_file(file)
    with readable():
        db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "busy_timeout=5000", "cache_size=-512"):
            db.execute(f"PRAGMA {pragma}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA:
        raise StoreUnwritableError(
            f"{file}: expected a job store of version {SCHEMA} or older, got {version}; use a newer gateway"
        )
    changes = [_OLDER[each] for each in range(version, SCHEMA)] if version else [_TABLES]
    if changes:
        with transaction(db):
            for statement in filter(str.strip, ";".join(changes).split(";")):
                db.execute(statement)
            db.execute(f"PRAGMA user_version={SCHEMA}")
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it, or nothing."""
    with readable():
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")


@contextmanager
def readable() -> Iterator[None]:
    """SQLite's errors about the disk as ours."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "") or ""
        if any(name.startswith(each) for each in _UNWRITABLE):
            raise StoreUnwritableError(
                f"the job store cannot be written: {error}; free space on its disk, or make it writable"
            ) from error
        raise
