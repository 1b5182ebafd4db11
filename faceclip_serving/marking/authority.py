"""An installation's own keys: the watermark's, and an authority with a certificate that signs pictures.

Makes and reads them in one folder. Private keys are files that their owner alone can read (mode 0600), and are refused otherwise.
An own authority proves that a picture comes from this installation to whoever trusts its root; strangers see a valid signature
of somebody unknown. A certificate of a public authority takes its place by the settings `certificate` and `certificate_key`.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from ..contract.errors import UserError
from .watermark import KEY_BYTES

WATERMARK_KEY, CERTIFICATE, CERTIFICATE_KEY, ROOT, ROOT_KEY = (
    "watermark.key", "certificate.pem", "certificate.key", "root.pem", "root.key"
)  # fmt: skip
"""Files of the folder."""
SELF_MADE = "faceclip-triton (self-made)"
"""Whom certificates name that nobody gave an organisation."""
_YEARS = 10
_LOCK = ".lock"
_SIGNS_CLAIMS = ObjectIdentifier("1.3.6.1.4.1.62558.2.1")
"""C2PA's own purpose of a key. E-mail protection stands beside it for readers that know only that."""


class KeysError(UserError):
    """Keys or certificates that cannot be used; the message says why, and the cure."""


class AlreadyThere(KeysError):
    """An authority would have been made where there is one."""


@dataclass(frozen=True)
class Made:
    """What `make` made."""

    folder: Path
    organisation: str
    root_sha256: str
    """Fingerprint of the root, by which people compare it."""
    expires: datetime.datetime


def make(folder: Path, organisation: str, replace: bool = False) -> Made:
    """An authority and a certificate for `organisation` in `folder`, and a watermark's key where there is none.

    `replace`: in place of an authority that is there. Raises `KeysError`, `AlreadyThere` among them.
    """
    if not organisation.strip() or not organisation.isprintable() or len(organisation) > 64:
        raise KeysError(f"organisation: expected a name of 1 to 64 printable characters, got {organisation!r}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of servers that start together one makes, the others find
            if (folder / ROOT).exists() and not replace:
                known = organisation_of(_certificates(folder / CERTIFICATE)[0])
                raise AlreadyThere(
                    f"{folder}: expected a folder without credentials, it has some of '{known}'; choose another, or replace them by"
                    " --replace: pictures signed until now then count as somebody else's"
                )
            root, root_key = _root(organisation)
            leaf, leaf_key = _leaf(organisation, root, root_key)
            for name, key in ((ROOT_KEY, root_key), (CERTIFICATE_KEY, leaf_key)):
                write_secret(folder / name, _private_pem(key))
            write(folder / CERTIFICATE, _pem(leaf) + _pem(root))
            make_hex_key(folder / WATERMARK_KEY)
            write(folder / ROOT, _pem(root))  # last: an authority that is there is whole
    except OSError as error:
        raise KeysError(
            f"marks_folder: {error.filename or folder}: {error.strerror}; choose a folder that may be written to, or marks=none"
        ) from None
    return Made(folder, organisation, fingerprint(root), leaf.not_valid_after_utc)


def make_hex_key(path: Path) -> None:
    """A new key, such as the watermark's, unless the file is there: for who holds the folder's lock. Raises OSError."""
    if not path.exists():
        write_secret(path, secrets.token_hex(KEY_BYTES).encode() + b"\n")


def watermark_keys(path: Path) -> tuple[bytes, ...]:
    """The keys of the invisible mark: pictures are marked by the first, and read by all. Raises `KeysError`."""
    return hex_keys(path, "watermark_key")


def hex_keys(path: Path, name: str) -> tuple[bytes, ...]:
    """The keys in a file, one a line in hexadecimal, the one in use first. `name`: of the setting. Raises `KeysError`."""
    lines = read_secret(path, name).split()
    try:
        keys = tuple(bytes.fromhex(line.decode()) for line in lines)
    except ValueError:
        keys = ()
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise KeysError(
            f"{name}: expected lines of {2 * KEY_BYTES} hexadecimal digits in {path}; make one by `openssl rand -hex {KEY_BYTES}`"
        )
    return keys


def read_secret(path: Path, name: str) -> bytes:
    """A file that its owner alone can read. `name`: of the setting. Raises `KeysError`."""
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except OSError as error:
        raise KeysError(f"{name}: {path}: {error.strerror}; make credentials by `python -m server credentials init`") from None
    if stat.S_IMODE(mode) & 0o077:
        raise KeysError(
            f"{name}: expected a file that its owner alone can read, got mode {stat.S_IMODE(mode):04o}; `chmod 600 {path}`"
        )
    return content


def read_certificates(path: Path) -> list[x509.Certificate]:
    """The chain in a PEM file, the signing certificate first; valid now. Raises `KeysError`."""
    found = _certificates(path)
    leaf, now = found[0], datetime.datetime.now(datetime.UTC)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        raise KeysError(
            f"certificate: expected one that is valid now, {path} is valid from {leaf.not_valid_before_utc:%Y-%m-%d} to"
            f" {leaf.not_valid_after_utc:%Y-%m-%d}; renew it, or make an own one by `python -m server credentials init --replace`"
        )
    return found


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise KeysError(f"certificate: {path}: {error.strerror}; make one by `python -m server credentials init`") from None
    except ValueError as error:
        raise KeysError(f"certificate: expected a chain in PEM, the signing certificate first, in {path} ({error})") from None


def organisation_of(certificate: x509.Certificate) -> str:
    """Whom a certificate names."""
    for kind in (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME):
        for each in certificate.subject.get_attributes_for_oid(kind):
            return str(each.value)
    return certificate.subject.rfc4514_string()


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, as tools print it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _name(organisation: str, what: str) -> x509.Name:
    return x509.Name([
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation), x509.NameAttribute(NameOID.COMMON_NAME, what)
    ])  # fmt: skip


def _root(organisation: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(organisation, f"{organisation} root"[:64])
    builder = _builder(name, name, key.public_key()).add_extension(x509.BasicConstraints(True, 0), critical=True)
    return builder.add_extension(_usage(certificates=True), critical=True).sign(key, hashes.SHA256()), key


def _leaf(
    organisation: str, root: x509.Certificate, root_key: ec.EllipticCurvePrivateKey
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(organisation, "faceclip-triton pictures"), root.subject, key.public_key())
    for extension, critical in (
        (x509.BasicConstraints(False, None), True),
        (_usage(certificates=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION, _SIGNS_CLAIMS]), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False),
    ):
        builder = builder.add_extension(extension, critical)
    return builder.sign(root_key, hashes.SHA256()), key


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=certificates, crl_sign=certificates, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def write_secret(path: Path, content: bytes) -> None:
    """A file that its owner alone can read. Raises OSError."""
    write(path, content, 0o600)


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Whole or not at all."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")  # containers that share a folder may share process ids too
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
