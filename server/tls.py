"""How a launcher reaches the gRPC port of its own server where options of tritonserver switch TLS on."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path

from .direct import AddressError, Connection

CERTIFICATE, KEY, ROOT = "--grpc-server-cert", "--grpc-server-key", "--grpc-root-cert"
_FILES = (CERTIFICATE, KEY, ROOT)
_USE, _MUTUAL = "--grpc-use-ssl", "--grpc-use-ssl-mutual"


def absolute(options: Sequence[str]) -> list[str]:
    """Options of tritonserver, `--name=value` or `--name value`, with absolute paths of TLS files: it runs in another folder."""
    found, name = [], ""
    for word in options:
        option, equals, value = word.partition("=")
        if name in _FILES:
            word = str(Path(word).absolute())
        elif option in _FILES and equals:
            word = f"{option}={Path(value).absolute()}"
        found.append(word)
        name = "" if equals else option
    return found


def own_connection(
    address: str, options: Sequence[str], parameters: Mapping[str, str], client: tuple[Path, Path] | None = None
) -> Connection:
    """To the own server at `address`, which has these `options`. Raises `AddressError`.

    Its certificate is trusted as it is, whoever signed it and whatever name it has: the file is the server's own. `client`:
    certificate and key to show a server that asks for one; None: the server's own.
    """
    told = _read(options)
    mutual = _is_on(told.get(_MUTUAL, ""))
    if not (mutual or _is_on(told.get(_USE, ""))):
        return Connection(address, parameters=parameters)
    if missing := [option for option in (CERTIFICATE, KEY) if option not in told]:
        raise AddressError(f"{missing[0]}: needed where {_MUTUAL if mutual else _USE} is on")
    certificate, key = Path(told[CERTIFICATE]).absolute(), Path(told[KEY]).absolute()
    for option, path in ((CERTIFICATE, certificate), (KEY, key)):
        if not path.is_file():
            raise AddressError(f"{option}: {path}: no such file")
    shown, its_key = (client or (certificate, key)) if mutual else (None, None)
    return Connection(f"grpcs://{address}", {}, certificate, shown, its_key, _name(certificate), parameters)


def _read(options: Sequence[str]) -> dict[str, str]:
    told, name = {}, ""
    for word in options:
        option, equals, value = word.partition("=")
        if name and not word.startswith("--"):
            told[name] = word
        elif equals:
            told[option] = value
        name = "" if equals else option
    return told


def _is_on(value: str) -> bool:
    """As tritonserver reads it."""
    return value.lower() in ("1", "true", "on")


def _name(certificate: Path) -> str:
    """A name that the certificate is for."""
    try:
        # The one function of the standard library that reads a certificate which nobody has shown us yet.
        read = ssl._ssl._test_decode_cert(str(certificate))  # type: ignore[attr-defined]
    except ssl.SSLError as error:
        raise AddressError(f"{CERTIFICATE}: {certificate}: expected a certificate in PEM form ({error})") from None
    names = [name for kind, name in read.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    names += [value for part in read.get("subject", ()) for kind, value in part if kind == "commonName"]
    return names[0].replace("*", "any") if names else ""
