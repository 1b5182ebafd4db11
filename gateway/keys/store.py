"""API keys at rest: their hashes, never themselves; what each may do, and until when."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sqlite3
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ..errors import ApiError
from ..own import own_file, own_folder
from .caller import OPEN, Caller, Limits

PREFIX = "fc"
_TABLES = """
CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, hash TEXT NOT NULL, name TEXT NOT NULL, scopes TEXT NOT NULL, limits TEXT NOT NULL,
  created TEXT NOT NULL, expires TEXT, revoked TEXT);
CREATE TABLE IF NOT EXISTS usage (key TEXT, day TEXT, pictures INTEGER NOT NULL, PRIMARY KEY (key, day));
"""


@dataclass(frozen=True)
class Key:
    """A key as it is listed."""

    caller: Caller
    created: str
    expires: str | None
    revoked: str | None

    @property
    def state(self) -> str:
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and datetime.fromisoformat(self.expires) <= datetime.now(UTC) else "valid"


class KeyStore:
    """The keys of a data folder. Other processes add and revoke; that holds from the next request on."""

    def __init__(self, folder: Path) -> None:
        own_folder(folder)
        path = folder / "keys.sqlite"
        own_file(path)
        self.database = sqlite3.connect(path, timeout=10, check_same_thread=False)
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.executescript(_TABLES)
        self._version: int | None = None
        self._known: dict[str, tuple[str, Key]] = {}

    @property
    def is_open(self) -> bool:
        """There was never a key: everybody may ask. Revoking the last one opens nothing."""
        self._refresh()
        return not self._known

    def caller(self, authorization: str | None) -> Caller:
        """Whose key this header carries. Raises `ApiError` (401)."""
        if self.is_open:
            return OPEN
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise ApiError(401, "an API key is required: send it as 'Authorization: Bearer KEY'", code="missing_api_key")
        given = given.strip()
        id = given.split("_")[1] if given.count("_") >= 2 else ""
        digest, key = self._known.get(id, ("", None))
        if not hmac.compare_digest(digest, _digest(given)) or key is None:
            raise ApiError(401, "this API key is not known here", code="invalid_api_key")
        if key.state != "valid":
            raise ApiError(401, f"this API key is {key.state}; ask the operator for another", code=f"{key.state}_api_key")
        return key.caller

    def caller_for(self, scope: str, authorization: str | None) -> Caller:
        """The same, of a key of this scope. Raises `ApiError` (401, 403)."""
        caller = self.caller(authorization)
        if scope not in caller.scopes:
            own = ", ".join(sorted(caller.scopes))
            raise ApiError(403, f"this key is not for '{scope}'; it is for {own}", code="scope_missing")
        return caller

    def add(self, name: str, scopes: frozenset[str], limits: Limits, expires: datetime | None) -> str:
        """Makes a key and returns it: it is told this once."""
        id = secrets.token_hex(4)
        key = f"{PREFIX}_{id}_{secrets.token_urlsafe(32)}"
        row = (
            id,
            _digest(key),
            name,
            json.dumps(sorted(scopes)),
            json.dumps(asdict(limits)),
            _now(),
            expires.astimezone(UTC).isoformat() if expires else None,
            None,
        )
        with self.database:
            self.database.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._version = None
        return key

    def revoke(self, id: str) -> bool:
        """Whether there is such a key."""
        with self.database:
            found = self.database.execute("UPDATE keys SET revoked = coalesce(revoked, ?) WHERE id = ?", (_now(), id)).rowcount
        self._version = None
        return found == 1

    def all(self) -> list[Key]:
        self._refresh()
        return [key for _, key in self._known.values()]

    def by_id(self, id: str) -> Caller | None:
        """The caller of a key, whatever its state: for work that was accepted before. None: there is no such key."""
        if not id:
            return OPEN
        self._refresh()
        return self._known[id][1].caller if id in self._known else None

    def close(self) -> None:
        self.database.close()

    def _refresh(self) -> None:
        """Reads the table anew where another connection has written."""
        (version,) = self.database.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return
        rows = self.database.execute(
            "SELECT id, hash, name, scopes, limits, created, expires, revoked FROM keys ORDER BY created"
        )
        self._known = {
            id: (digest, Key(Caller(id, name, frozenset(json.loads(scopes)), _limits(limits)), created, expires, revoked))
            for id, digest, name, scopes, limits, created, expires, revoked in rows
        }
        self._version = version


def _limits(text: str) -> Limits:
    told = json.loads(text)
    limits = Limits(**told)
    return replace(limits, variants=tuple(told["variants"])) if told.get("variants") is not None else limits


def _digest(key: str) -> str:
    """A key has 256 random bits: one round is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
