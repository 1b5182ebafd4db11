"""Content Credentials (C2PA): what a picture is, signed by whoever offers the service, in the picture's file.

Signs; `verify` reads. Says that the picture is generated, by what and when, and which invisible mark it bears; never the prompt,
nor anything of the face. Signing is the last step: whatever changes the file afterwards breaks the signature. There is no picture
without one: what cannot be signed raises.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from ..contract.functions import loaded
from .authority import KeysError, fingerprint, organisation_of, read_certificates, read_secret
from .metadata import EDITED, GENERATED
from .verify import read_credentials

SignBytes = Callable[[bytes], bytes]
"""Signs with the certificate's key: ECDSA as DER or as two numbers side by side, Ed25519, or RSA-PSS with SHA-256."""


@dataclass(frozen=True)
class Claim:
    """What is said of one picture."""

    system: str
    """Name of what made it."""
    version: str
    mark: tuple[str, str] | None
    """Of its invisible mark, if it has one: the name of its kind in `c2pa.soft-binding`, and its value there."""
    label: bool
    """Whether a visible label was drawn into it."""
    inputs: Sequence[Mapping[str, str]] = ()
    """Of the photographs that came with credentials: `manifest`, its name."""
    parent: Mapping[str, str] | None = None
    """Of the picture that was changed, the same, or empty where it had none; None: nothing was changed, the picture is new."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """More that is said of the system, such as the licence of its weights; text by text."""


class Signer:
    """A certificate and the way to its key. May be used by several threads."""

    def __init__(self, certificate: Path, key: str, timestamp_url: str = "") -> None:
        """`certificate`: a chain in PEM. `key`: a PEM file, or `module:function` or `file.py:function`, a `SignBytes`.

        `timestamp_url`: of an authority that confirms the time; then signing needs it to answer. Signs once, so that what cannot
        sign is known now. Raises `KeysError`.
        """
        chain = read_certificates(certificate)
        self.organisation = organisation_of(chain[0])
        self.expires = chain[0].not_valid_after_utc
        self.root_sha256 = fingerprint(chain[-1])
        self.anchors = _pem(chain[-1])
        """In PEM, for whoever trusts this signer."""
        try:
            signer = _signer(chain, key, timestamp_url)
            settings = {
                "builder": {"thumbnail": {"enabled": False}, "created_assertion_labels": list(_CREATED)},
                "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
            }
            self._context = c2pa.Context.from_dict(settings, signer)
            probe, _ = self.sign(_PROBE, "image/png", Claim("probe", "0", None, False))
            found = read_credentials(probe, "PNG")
            if found.state == "invalid":
                raise c2pa.C2paError(found.why)
        except c2pa.C2paError as error:
            raise KeysError(
                f"certificate: pictures cannot be signed by {certificate} ({error}); C2PA asks for a certificate of an authority, for"
                " digital signatures (key usage), with an authority key identifier, and its key"
            ) from None

    def sign(self, file: bytes, mime: str, claim: Claim) -> tuple[bytes, str]:
        """The file with its credentials, and the name of the manifest. Raises what c2pa raises."""
        name = f"urn:c2pa:{uuid.uuid4()}"
        builder = c2pa.Builder(json.dumps(_manifest(name, claim)), self._context)
        signed = io.BytesIO()
        builder.sign(mime, io.BytesIO(file), signed)
        return signed.getvalue(), name


_ACTIONS, _BINDING, _NOTES = "c2pa.actions.v2", "c2pa.soft-binding", "io.faceclip-triton.system"
_CREATED = ("c2pa.actions", _ACTIONS, _BINDING, _NOTES)
"""What the signer answers for by name."""


def _manifest(name: str, claim: Claim) -> dict[str, Any]:
    agent = {"name": claim.system, "version": claim.version}
    done: dict[str, Any] = {"when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "softwareAgent": agent}
    actions: list[dict[str, Any]] = [{"action": "c2pa.created", "digitalSourceType": GENERATED, **done}]
    ingredients = [
        {
            "title": f"reference photograph {i}",
            "relationship": "inputTo",
            "instance_id": each["manifest"],
            "description": f"came with credentials of its own: {each['manifest']}",
        }
        for i, each in enumerate(claim.inputs, 1)
    ]
    if claim.parent is not None:
        parent = claim.parent.get("manifest", f"urn:uuid:{uuid.uuid4()}")
        described = f"came with credentials of its own: {parent}" if claim.parent else "came without credentials"
        ingredients.append({
            "title": "picture that was changed", "relationship": "parentOf", "instance_id": parent, "label": parent,
            "description": described,
        })  # fmt: skip
        actions = [
            {"action": "c2pa.opened", "parameters": {"ingredientIds": [parent]}, **done},
            {"action": "c2pa.edited", "digitalSourceType": EDITED, "description": "drawn anew by a model", **done},
        ]
    if claim.label:
        actions.append({"action": "c2pa.edited", "softwareAgent": agent, "description": "a visible label was drawn"})
    assertions: list[dict[str, Any]] = []
    if claim.mark is not None:
        kind, value = claim.mark
        actions.append({"action": "c2pa.watermarked.bound", "softwareAgent": agent})
        assertions.append({"label": _BINDING, "data": {"alg": kind, "blocks": [{"scope": {}, "value": value}], "pad": ""}})
    if claim.notes:
        assertions.append({"label": _NOTES, "data": dict(claim.notes)})
    return {
        "label": name,
        "claim_generator_info": [{"name": "faceclip-triton", "version": claim.version}],
        "assertions": [{"label": _ACTIONS, "data": {"actions": actions}}, *assertions],
        "ingredients": ingredients,
    }


def _signer(chain: list[x509.Certificate], key: str, timestamp_url: str) -> c2pa.Signer:
    certificates = "".join(_pem(each) for each in chain)
    public = chain[0].public_key()
    algorithm = _algorithm(public)
    if ":" in key and not Path(key).exists():
        function: SignBytes = loaded(key, "certificate_key: expected a PEM file or a function", KeysError)
        width = -(-public.curve.key_size // 8) if isinstance(public, ec.EllipticCurvePublicKey) else 0
        return c2pa.Signer.from_callback(
            lambda data: _side_by_side(function(data), width), algorithm, certificates, timestamp_url or None
        )
    pem = read_secret(Path(key), "certificate_key")
    try:
        private = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise KeysError(f"certificate_key: expected a private key in PEM without a password in {key} ({error})") from None
    ours = private.public_key()
    if _spki(ours) != _spki(public):
        raise KeysError(f"certificate_key: expected the key of the certificate, got another one in {key}")
    plain = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return c2pa.Signer.from_info(
        c2pa.C2paSignerInfo(algorithm, certificates.encode(), plain, timestamp_url.encode() if timestamp_url else None)
    )


def _algorithm(key: Any) -> Any:
    """C2PA's name for signatures of a key."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        sizes = {256: c2pa.C2paSigningAlg.ES256, 384: c2pa.C2paSigningAlg.ES384, 521: c2pa.C2paSigningAlg.ES512}
        if key.curve.key_size in sizes:
            return sizes[key.curve.key_size]
    if isinstance(key, ed25519.Ed25519PublicKey):
        return c2pa.C2paSigningAlg.ED25519
    if isinstance(key, rsa.RSAPublicKey):
        return c2pa.C2paSigningAlg.PS256
    raise KeysError(f"certificate: expected a key of ECDSA (P-256, P-384, P-521), Ed25519 or RSA, got {type(key).__name__}")


def _side_by_side(signature: bytes, width: int) -> bytes:
    """ECDSA as C2PA has it: both numbers, each `width` bytes. Key services answer in DER."""
    if width and len(signature) != 2 * width:
        return b"".join(number.to_bytes(width, "big") for number in decode_dss_signature(signature))
    return signature


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _spki(key: Any) -> bytes:
    found: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return found


_PROBE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415478da63f8ffff3f0005fe02fe33129514"
    "0000000049454e44ae426082"
)
"""A PNG of one white pixel."""
