"""Whether the person in the photographs has consented: what a server's settings ask of a record, and why one does not do.

Refusals are `Refused`, by the codes `consent.missing`, `consent.signature`, `consent.not_adult`, `consent.not_yet`, `consent.expired`,
`consent.revoked`, `consent.unchecked`, `consent.scope` and `consent.not_covered`.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray

from ..contract.consent import SIGNATURE
from ..contract.errors import Refused
from ..contract.settings import Settings
from ..marking.authority import KeysError
from .keys import CONSENT_PUBLIC, NAMELESS, REVOKED, References, is_signed, own, read_public, sign
from .revoked import Revoked

log = logging.getLogger(__name__)

_CLOCKS_DIFFER = timedelta(minutes=5)
_CURE = "; ask the person, and sign a record by `python -m server consent sign`"


@dataclass(frozen=True)
class Rule:
    """What a server wants of consent. May be used by several threads."""

    mode: str = "off"
    """One of `CONSENT_MODES`."""
    keys: tuple[Ed25519PublicKey, ...] = ()
    """Whose signatures count. None: signatures are not looked at."""
    scope: str = ""
    """What consent must be for; empty: anything."""
    references: References = NAMELESS
    revoked: Revoked | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Rule:
        """Raises `KeysError`."""
        references = References.from_settings(settings)
        if settings["consent"] == "off":
            return cls(references=references)
        public = own(settings, "consent_key", CONSENT_PUBLIC)
        asked = settings["consent_key"] or settings["consent"] == "require" or public.exists()
        revoked = Revoked(own(settings, "revoked", REVOKED))
        revoked.has({"id": "", "subject": ""})  # a list that cannot be read is known now
        return cls(
            settings["consent"],
            read_public(public, "consent_key") if asked else (),
            settings["consent_scope"],
            references,
            revoked,
        )

    def told(self) -> dict[str, Any]:
        """For status."""
        return {"mode": self.mode, "signatures": "checked" if self.keys else "not checked", "scope": self.scope}

    def of_request(self, record: Mapping[str, Any] | None, now: datetime | None = None) -> Consent:
        """What a request says, if its photographs show somebody. Raises `Refused` for a record that does not do, whatever they show."""
        if self.mode == "off" or record is None:
            return Consent(self, None)
        try:
            self._check(record, now or datetime.now(UTC))
        except Refused as error:
            error.audit["consent"] = {"mode": self.mode, "id": record["id"]}
            raise
        return Consent(self, record)

    def _check(self, record: Mapping[str, Any], now: datetime) -> None:
        told = f"consent: the record '{record['id']}'"
        if self.keys and not _signature_holds(self.keys, record):
            raise Refused(
                f"consent.signature: {told} is not signed by a key that this server knows, or was changed since{_CURE}"
            )
        if not record["adult"]:
            raise Refused(
                f"consent.not_adult: {told} does not say that the person is an adult; pictures of minors are not made"
            )
        given, expires = (datetime.fromisoformat(record[name]) for name in ("given", "expires"))
        if now + _CLOCKS_DIFFER < given:
            raise Refused(f"consent.not_yet: {told} is given from {record['given']} on, now it is {_shown(now)}{_CURE}")
        if now >= expires:
            raise Refused(f"consent.expired: {told} expired at {record['expires']}, now it is {_shown(now)}{_CURE}")
        try:
            revoked = self.revoked is not None and self.revoked.has(record)
        except KeysError as error:
            log.error("consent cannot be checked, and is refused: %s", error)
            raise Refused(
                f"consent.unchecked: {told} cannot be used now, since this server cannot read who has revoked; tell its operator"
            ) from None
        if revoked:
            raise Refused(f"consent.revoked: {told} was revoked, or the person has revoked all; their photographs are not used")
        if self.scope and self.scope not in record["scope"]:
            raise Refused(f"consent.scope: {told} is for {', '.join(record['scope'])}, this server makes '{self.scope}'{_CURE}")


NOT_ASKED = Rule()
"""Of a server that does not look at consent."""


@dataclass(frozen=True)
class Consent:
    """Of one request."""

    rule: Rule
    record: Mapping[str, Any] | None
    """One that does, as far as the photographs are not looked at; None: there is none, or nobody asks."""

    def check(self, which: str, pixels: NDArray[np.uint8]) -> str | None:
        """The name of a decoded photograph. `which`: one, such as `face_images[0]`. Raises `Refused` where it is not covered.

        A picture of one colour shows nobody, and needs no consent: the first request of a server that starts sends such a one.
        """
        names = self.rule.references.of_photo(pixels)
        if self.record is not None and not covers(self.record, [names]):
            count = len(self.record["references"])
            raise Refused(
                f"consent.not_covered: {which}: the consent '{self.record['id']}' is for {count} other"
                f" photograph{'s' if count > 1 else ''}; send one of those, as the same picture, or sign a record that names this one",
                {"references": list(names[:1])},
            )
        if self.record is None and self.rule.mode == "require" and (pixels != pixels[0, 0]).any():
            raise Refused(
                f"consent.missing: {which}: this server makes no picture of somebody without their consent, and none"
                f" came{_CURE}, then send it as `consent`",
                {"references": list(names[:1])},
            )
        return names[0] if names else None

    def check_identity(self, photographs: Sequence[Sequence[str]], which: str = "identity") -> None:
        """The same of a sealed identity, by the names of the photographs that it was made of. Raises `Refused`."""
        told = {"references": [names[0] for names in photographs]}
        if self.record is not None and not covers(self.record, photographs):
            made = "photographs that it does not name" if photographs else "photographs that had no names here"
            raise Refused(
                f"consent.not_covered: {which}: the consent '{self.record['id']}' does not cover it: it was made of {made}; make it"
                " again with a record that names them",
                told,
            )
        if self.record is None and self.rule.mode == "require":
            raise Refused(
                f"consent.missing: {which}: it was made without a record of consent, and this server makes no picture of somebody without"
                f" one{_CURE}, then make the identity again with it as `consent`",
                told,
            )

    def told(self) -> dict[str, Any]:
        """For details and the audit log: never who it is."""
        if self.record is None:
            return {"mode": self.rule.mode, "id": None}
        return {
            "mode": self.rule.mode,
            "id": self.record["id"],
            "expires": self.record["expires"],
            "signed": bool(self.rule.keys),
        }


def covers(record: Mapping[str, Any], photographs: Sequence[Sequence[str]]) -> bool:
    """Whether a record names each of some photographs, whose names are given, by one of its names; and there is one."""
    return bool(photographs) and all(set(names) & set(record["references"]) for names in photographs)


def signed(record: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """The record with its signature."""
    content = _content(record)
    return {**content, SIGNATURE: base64.b64encode(sign(key, content)).decode()}


def _signature_holds(keys: Sequence[Ed25519PublicKey], record: Mapping[str, Any]) -> bool:
    try:
        signature = base64.b64decode(record.get(SIGNATURE, ""), validate=True)
    except (binascii.Error, ValueError):
        return False
    return is_signed(keys, _content(record), signature)


def _content(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != SIGNATURE}


def _shown(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
