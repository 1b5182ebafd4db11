"""What an operator chooses: one dataclass, from a TOML file and the flags of `python -m gateway run`."""

from __future__ import annotations

import argparse
import ipaddress
import re
import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_HEADER = re.compile(r"(?!grpc-)[a-z0-9_.-]+(?<!-bin)=[ -~]*", re.IGNORECASE)
"""NAME=VALUE, as gRPC takes it as text."""

_HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[0-9a-f:]*:[0-9a-f:.]*:[0-9a-f:.]*", re.IGNORECASE)
"""A name or an address, all names below it with a star; no port, no path."""


class SettingsError(Exception):
    """A setting is wrong; the message names it, what was expected, what came, and the cure."""


def _setting(default: Any, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True)
class Settings:
    """Names are those of the file; flags are the same with dashes."""

    server: tuple[str, ...] = _setting(
        ("localhost:8001",), "gRPC address of a server: host:port, or grpcs://host:port for TLS; may be repeated"
    )
    server_ca: str = _setting("", "certificate of the authority that signed the servers', for grpcs://")
    server_header: tuple[str, ...] = _setting((), "NAME=VALUE of every call of a server; may be repeated")
    server_metrics: tuple[str, ...] = _setting(
        (), "address of a server's metrics, in the order of --server (default: http://HOST:8002/metrics each)"
    )
    data: str = _setting("build/gateway", "folder of keys, jobs and results")
    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8080, "port to listen on; 0: any free one")
    public_url: str = _setting(
        "", "how callers reach the gateway, e.g. https://pictures.example.org; its host is then accepted"
    )
    cors_origin: tuple[str, ...] = _setting(
        (), "origin of a page elsewhere that may ask, e.g. https://app.example.org; may be repeated"
    )
    timeout: float = _setting(600.0, "longest time of one drawing, in seconds")
    connections: int = _setting(500, "most connections at a time; requests of further ones get 503")
    upload_mib: float = _setting(32.0, "largest body of a request, in MiB")
    upload_parts: int = _setting(64, "most parts of a multipart body")
    upload_timeout: float = _setting(60.0, "longest time that a body may take to arrive, in seconds")
    keep_results: float = _setting(86400.0, "how long results are kept, in seconds")
    drain_timeout: float = _setting(60.0, "how long a stop waits for what is being drawn, in seconds")
    jobs_at_once: int = _setting(8, "most jobs that are drawn at a time")
    jobs_most: int = _setting(10_000, "most jobs that wait or are drawn; more are refused")
    job_deadline: float = _setting(3600.0, "how long after its acceptance a job is given up, in seconds")
    webhook_host: tuple[str, ...] = _setting(
        (),
        "host that webhooks may go to: hooks.example.org, *.example.org, or an origin such as http://10.1.2.3:9000; may be repeated",
    )
    webhook_network: tuple[str, ...] = _setting(
        (), "network of webhook hosts that is allowed although it is private, e.g. 10.1.2.0/24; may be repeated"
    )

    @property
    def folder(self) -> Path:
        return Path(self.data)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file of settings, named as the flags; flags go first")
    for each in fields(Settings):
        default: Any = each.default
        many = isinstance(default, tuple)
        shown = ", ".join(default) if many else default
        parser.add_argument(
            f"--{each.name.replace('_', '-')}",
            action="append" if many else "store",
            type=str if many else type(default),
            help=each.metadata["doc"] + (f" (default: {shown})" if shown not in ("", ()) else ""),
        )


def read_settings(args: argparse.Namespace) -> Settings:
    """From the flags, and the file that they may name. Raises `SettingsError`."""
    chosen = _from_file(args.config) if args.config else {}
    told = {each.name: getattr(args, each.name) for each in fields(Settings) if getattr(args, each.name) is not None}
    return checked(chosen | {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()})


def _from_file(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        told = f"config: expected a TOML file of settings, got '{path}' ({error}); see docs/gateway.md#settings"
        raise SettingsError(told) from None
    return {name.replace("-", "_"): tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def checked(chosen: Mapping[str, Any]) -> Settings:
    """Of what is chosen; the rest are defaults. Raises `SettingsError`: `NAME: expected …, got …; cure`."""
    known: dict[str, Any] = {each.name: each.default for each in fields(Settings)}
    for name, value in chosen.items():
        if name not in known:
            raise SettingsError(f"config: expected names of settings, got {name!r}; known are {', '.join(known)}")
        _check_kind(name, value, type(known[name]))
    settings = Settings(**chosen)
    _check_servers(settings)
    for name in ("public_url", "cors_origin"):
        for url in _each(getattr(settings, name)):
            if not _is_web_address(url, only_host=True):
                raise SettingsError(f"{name}: expected scheme and host, got {url!r}; write e.g. https://pictures.example.org")
    for host in settings.webhook_host:
        if not ((_is_web_address(host, only_host=True) and "*" not in host) or _HOST.fullmatch(host)):
            cure = "write hooks.example.org or *.example.org for https at any port, or an origin such as http://10.1.2.3:9000"
            raise SettingsError(f"webhook_host: expected a host or an origin, got {host!r}; {cure}")
    for network in settings.webhook_network:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            told = f"webhook_network: expected a network, got {network!r} ({error}); write e.g. 10.1.2.0/24"
            raise SettingsError(told) from None
    return settings


def _check_kind(name: str, value: Any, kind: type) -> None:
    fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
    if kind is tuple:
        if not fits or not all(isinstance(each, str) for each in value):
            told = list(value) if isinstance(value, tuple) else value
            raise SettingsError(f'{name}: expected a list of texts, got {told!r}; write {name} = ["…"]')
    elif not fits:
        what, example = {str: ("a text", '"…"'), int: ("a whole number", "8"), float: ("a number", "1.5")}[kind]
        raise SettingsError(f"{name}: expected {what}, got {value!r}; write {name} = {example}")
    elif name == "port":
        if not 0 <= value <= 65535:
            raise SettingsError(f"port: expected 0 to 65535, got {value}; 0 takes any free one")
    elif kind in (int, float) and not 1e-9 <= value < 1e9:
        raise SettingsError(
            f"{name}: expected a number above 0 and below 1e9, got {value}; default: {getattr(Settings, name):g}"
        )


def _check_servers(settings: Settings) -> None:
    from faceclip.address import parse_address  # here, since it brings gRPC, which `health` and `keys` do without
    from faceclip.errors import InvalidRequestError

    if not settings.server:
        raise SettingsError("server: expected one at least, got []; leave it out for localhost:8001")
    for address in settings.server:
        try:
            parse_address(address)
        except (InvalidRequestError, ValueError):
            cure = "write host:port, or grpcs://host:port for TLS (Triton's gRPC port is usually 8001)"
            raise SettingsError(f"server: expected the gRPC address of a server, got {address!r}; {cure}") from None
    for header in settings.server_header:
        if not _HEADER.fullmatch(header):
            cure = "a name has letters, digits and -_. and no grpc- before or -bin behind, a value is printable ASCII"
            raise SettingsError(f"server_header: expected NAME=VALUE, got {header!r}; {cure}")
    for url in settings.server_metrics:
        if not _is_web_address(url):
            raise SettingsError(
                f"server_metrics: expected an http:// address, got {url!r}; write e.g. http://HOST:8002/metrics"
            )
    many, most = len(settings.server_metrics), len(settings.server)
    if many > most:
        raise SettingsError(f"server_metrics: expected at most {most}, one for each server, got {many}; name their servers too")
    if settings.server_ca:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(settings.server_ca)
        except (OSError, ValueError) as error:
            cure = "name the file of the authority that signed the servers' certificates, or leave it out"
            told = f"server_ca: expected a file with certificates in PEM, got {settings.server_ca!r} ({error}); {cure}"
            raise SettingsError(told) from None


def _is_web_address(url: str, only_host: bool = False) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises as well
    except ValueError:
        return False
    further = only_host and (parts.path.strip("/") or parts.query or parts.fragment)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not further


def _each(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,) if value else ()
