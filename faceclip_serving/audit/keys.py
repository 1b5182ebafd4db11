"""Keys of consent and audit, and what is done with them: own ones beside those of the marks, made where they are missing.

Ed25519 signs, over canonical JSON (RFC 8785), so that a signature holds however a record was written. Photographs and prompts are
named by an HMAC of their content: the same one has the same name, and without the key nobody finds out whose it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from numpy.typing import NDArray

from ..contract.settings import Settings
from ..marking.authority import KeysError, hex_keys, make_hex_key, read_secret, write, write_secret

REFERENCE_KEY, REVOKED = "reference.key", "revoked.jsonl"
CONSENT_KEY, CONSENT_PUBLIC = "consent.key", "consent.pem"
AUDIT_KEY, AUDIT_PUBLIC = "audit.key", "audit.pem"
IDENTITY_KEY = "identity.key"
"""Files of the folder of own keys."""
_END = b"-----END PUBLIC KEY-----"
_LOCK = ".lock"


def own(settings: Settings, setting: str, name: str) -> Path:
    """The file that a setting names, or the own one."""
    return Path(settings[setting] or Path(settings["marks_folder"]) / name)


# ------------------------------------------------------------------------------------------------------------------- signatures
def canonical(document: Any) -> bytes:
    """Canonical JSON. Raises `ValueError` for what it cannot hold."""
    try:
        return rfc8785.dumps(document)
    except (rfc8785.CanonicalizationError, UnicodeError) as error:
        raise ValueError(str(error)) from None


def sign(key: Ed25519PrivateKey, document: Mapping[str, Any]) -> bytes:
    """64 bytes."""
    return key.sign(canonical(document))


def is_signed(keys: Sequence[Ed25519PublicKey], document: Mapping[str, Any], signature: bytes) -> bool:
    """Whether one of the keys has signed it."""
    content = canonical(document)
    for key in keys:
        try:
            key.verify(signature, content)
        except InvalidSignature:
            continue
        return True
    return False


def fingerprint(key: Ed25519PublicKey) -> str:
    """By which people compare keys: the beginning of its SHA-256, 32 hexadecimal digits."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:32]


def read_private(path: Path, name: str) -> Ed25519PrivateKey:
    """A key that its owner alone can read. `name`: of the setting. Raises `KeysError`."""
    content = read_secret(path, name)
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError) as error:
        raise KeysError(f"{name}: expected an Ed25519 key in PEM, without a password, in {path} ({error})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeysError(f"{name}: expected an Ed25519 key in {path}, got another kind; `openssl genpkey -algorithm ed25519`")
    return key


def read_public(path: Path, name: str) -> tuple[Ed25519PublicKey, ...]:
    """The public keys in a PEM file. `name`: of the setting. Raises `KeysError`."""
    try:
        parts = path.read_bytes().split(_END)[:-1]
        keys = [load_pem_public_key(part + _END) for part in parts]
    except OSError as error:
        raise KeysError(f"{name}: {path}: {error.strerror}; name a PEM file of public keys") from None
    except ValueError as error:
        raise KeysError(f"{name}: expected public keys in PEM in {path} ({error})") from None
    found = tuple(key for key in keys if isinstance(key, Ed25519PublicKey))
    if not found or len(found) < len(keys):
        raise KeysError(f"{name}: expected Ed25519 public keys in PEM in {path}; `openssl pkey -in KEY -pubout`")
    return found


def make_pair(folder: Path, private: str, public: str) -> None:
    """A new pair, unless the private key is there; its public part goes behind those that are in the file. Raises `KeysError`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of servers that start together one makes, the others find
            if (folder / private).exists():
                return
            key = Ed25519PrivateKey.generate()
            before = (folder / public).read_bytes() if (folder / public).exists() else b""
            write(folder / public, before + key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
            write_secret(folder / private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except OSError as error:
        raise KeysError(
            f"marks_folder: {error.filename or folder}: {error.strerror}; choose one that may be written to"
        ) from None


def make_missing(settings: Settings) -> None:
    """Makes the own keys that these settings need. Raises `KeysError`."""
    folder = Path(settings["marks_folder"])
    consent, audit = settings["consent"], settings["audit_folder"]
    if (consent != "off" or audit) and not settings["reference_key"]:
        make_references(folder)
    if consent == "require" and not settings["consent_key"]:
        make_pair(folder, CONSENT_KEY, CONSENT_PUBLIC)
    if audit and not settings["audit_key"]:
        make_pair(folder, AUDIT_KEY, AUDIT_PUBLIC)
    if settings["identities"] == "on" and not settings["identity_key"]:
        make_secret(folder, IDENTITY_KEY)


def make_secret(folder: Path, name: str) -> None:
    """A key of one line, unless it is there. Raises `KeysError`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            make_hex_key(folder / name)
    except OSError as error:
        raise KeysError(
            f"marks_folder: {error.filename or folder}: {error.strerror}; choose one that may be written to"
        ) from None


# ------------------------------------------------------------------------------------------------------------------- references
def make_references(folder: Path) -> None:
    """The key of `References`, unless it is there, and with it an empty list of revocations. Raises `KeysError`.

    Where there is the key and no list, somebody has taken it away: no other one is made, which would let all through.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / REFERENCE_KEY).exists():
                os.close(os.open(folder / REVOKED, os.O_WRONLY | os.O_CREAT, 0o600))
                make_hex_key(folder / REFERENCE_KEY)
    except OSError as error:
        raise KeysError(
            f"marks_folder: {error.filename or folder}: {error.strerror}; choose one that may be written to"
        ) from None


@dataclass(frozen=True)
class References:
    """Names photographs and prompts, by keys."""

    keys: tuple[bytes, ...] = field(default=(), repr=False)
    """The first names, all are known. None: nothing is named."""

    @classmethod
    def from_settings(cls, settings: Settings) -> References:
        """Raises `KeysError`."""
        if settings["consent"] == "off" and not settings["audit_folder"]:
            return cls()
        return cls(hex_keys(own(settings, "reference_key", REFERENCE_KEY), "reference_key"))

    def of_photo(self, pixels: NDArray[np.uint8]) -> tuple[str, ...]:
        """The names of a decoded photograph, [height, width, 3], one by each key: 64 hexadecimal digits. Another file of the same
        pixels has the same; another size or compression has not."""
        height, width = pixels.shape[:2]
        return self._names(b"photograph %d %d\0" % (height, width), np.ascontiguousarray(pixels).data)

    def of_text(self, text: str) -> tuple[str, ...]:
        """The names of a prompt."""
        return self._names(b"text\0", text.encode("utf-8", "surrogatepass"))

    def _names(self, kind: bytes, content: bytes | memoryview) -> tuple[str, ...]:
        found = []
        for key in self.keys:
            digest = hmac.new(key, kind, hashlib.sha256)
            digest.update(content)
            found.append(digest.hexdigest())
        return tuple(found)


NAMELESS = References()
"""Names nothing."""
