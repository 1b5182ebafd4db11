"""Portable identities: the features of somebody's face, sealed with a key of this server, for their caller to keep.

AES-256-GCM (NIST SP 800-38D) hides and signs them: without the key nobody learns anything of the face, changes a bit, or makes one. The
server stores none. In front stand what the file is, its version, the beginning of the key's SHA-256, by which rotated keys are found,
and the length of what follows.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..contract.errors import InvalidRequest
from ..contract.settings import Settings
from ..contract.tensors import Array, Tensor
from ..marking.authority import hex_keys
from .keys import IDENTITY_KEY, own

MAGIC, VERSION = b"\x89faceid\n", 1
"""A byte that no text has, so that base64 of one is told from the file."""
_HEAD = struct.Struct(">8sB8sI")
_LENGTH = struct.Struct(">I")
_NONCE = 12
_AGAIN = "; make it again from the photographs"


@dataclass(frozen=True)
class Identity:
    """What a sealed identity holds."""

    variant: str
    weights: str
    """Digest of the face encoder's files."""
    features: Mapping[str, Array] = field(repr=False)
    """Of the face encoder, FP32, one face: [1, ...] each."""
    made: str
    """RFC 3339, as `expires`."""
    photographs: int
    """That it was made of."""
    expires: str | None = None
    consent: Mapping[str, Any] | None = None
    """The record that it was made with."""
    references: Sequence[Sequence[str]] = ()
    """Names of each photograph, by the server's keys; empty where it names none."""
    descriptors: Sequence[Sequence[float]] = field(default=(), repr=False)
    """Of its faces, by the recogniser of listed faces; empty where no faces are listed."""
    recogniser: str = ""
    """Digest of that recogniser."""
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    def told(self) -> dict[str, Any]:
        """For `details`: never anything of the face."""
        return {"id": self.id, "photographs": self.photographs, "made": self.made, "expires": self.expires}


@dataclass(frozen=True)
class Identities:
    """Seals and opens the identities of one deployment. May be used by several threads."""

    keys: tuple[bytes, ...] = field(repr=False)
    """The first seals, all open."""
    variant: str
    weights: str
    features: tuple[Tensor, ...]
    """Of the variant's face encoder."""

    @classmethod
    def from_settings(cls, settings: Settings, variant: str, weights: str, features: tuple[Tensor, ...]) -> Identities | None:
        """None where the operator wants none. Raises `KeysError`."""
        if settings["identities"] == "off":
            return None
        return cls(hex_keys(own(settings, "identity_key", IDENTITY_KEY), "identity_key"), variant, weights, features)

    def seal(self, identity: Identity) -> bytes:
        """The file of an identity."""
        plain = asdict(replace(identity, features={}))
        del plain["features"]
        text = json.dumps(plain).encode()
        values = (np.ascontiguousarray(identity.features[tensor.name], "<f4").tobytes() for tensor in self.features)
        content = b"".join((_LENGTH.pack(len(text)), text, *values))
        key, nonce = self.keys[0], secrets.token_bytes(_NONCE)
        head = _HEAD.pack(MAGIC, VERSION, _name(key), _NONCE + len(content) + 16)
        return head + nonce + AESGCM(key).encrypt(nonce, content, head)

    def open(self, name: str, file: bytes, now: datetime | None = None) -> Identity:
        """The identity in the file that came as parameter `name`. Raises `InvalidRequest`, which says why it is none for this server."""
        if len(file) < _HEAD.size or not file.startswith(MAGIC):
            raise InvalidRequest(
                f"{name}: expected a sealed identity, as the client's identity() makes it of photographs, got {len(file)} bytes that do"
                " not begin as one; photographs belong in face_images"
            )
        head, sealed = file[: _HEAD.size], file[_HEAD.size :]
        _, version, key_name, length = _HEAD.unpack(head)
        if version != VERSION:
            raise InvalidRequest(f"{name}: expected an identity of version {VERSION}, got one of version {version}{_AGAIN}")
        if len(sealed) != length:
            what = "is cut off" if len(sealed) < length else "goes on behind its end"
            raise InvalidRequest(
                f"{name}: the identity {what}: expected {_HEAD.size + length} bytes, got {len(file)}; send the whole file as it was saved"
            )
        key = next((each for each in self.keys if _name(each) == key_name), None)
        if key is None:
            raise InvalidRequest(
                f"{name}: the identity was sealed by another server, or by a key that this one has no more{_AGAIN}"
            )
        try:
            content = AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], head)
        except InvalidTag:
            raise InvalidRequest(f"{name}: the identity was altered or damaged; send the file as it was saved") from None
        return self._checked(name, content, now or datetime.now(UTC))

    def _checked(self, name: str, content: bytes, now: datetime) -> Identity:
        """What this server or one with its key wrote, if it is for this deployment and now."""
        start = _LENGTH.size + _LENGTH.unpack_from(content)[0]
        plain = json.loads(content[_LENGTH.size : start])
        if plain["variant"] != self.variant:
            raise InvalidRequest(
                f"{name}: the identity is one of '{plain['variant']}', this server draws by '{self.variant}'{_AGAIN}"
            )
        if plain["weights"] != self.weights:
            raise InvalidRequest(
                f"{name}: the identity was made by other weights of '{self.variant}', or another precision of its face encoder{_AGAIN}"
            )
        if plain["expires"] is not None and now >= datetime.fromisoformat(plain["expires"]):
            raise InvalidRequest(
                f"{name}: the identity expired at {plain['expires']}, now it is {now:%Y-%m-%dT%H:%M:%SZ}{_AGAIN}"
            )
        values = np.frombuffer(content, "<f4", offset=start)
        features, first = {}, 0
        for tensor in self.features:
            shape = tensor.shape({"faces": 1})
            features[tensor.name] = values[first : first + math.prod(shape)].reshape(shape).astype(np.float32)
            first += math.prod(shape)
        return Identity(features=features, **plain)


def _name(key: bytes) -> bytes:
    return hashlib.sha256(b"faceid\0" + key).digest()[:8]
