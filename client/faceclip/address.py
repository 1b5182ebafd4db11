"""Where servers are, from what a user writes: `host:port`, `grpc://`, `grpcs://` or `dns:///host:port`, several with commas between
them, or a variant's name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from .errors import InvalidRequestError

DEFAULT_ADDRESS = "localhost:8001"
ENVIRONMENT_VARIABLE = "FACECLIP_URL"
_PORTS = {"grpc": 8001, "grpcs": 443}
_DNS = "dns:///"
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Variables that gRPC obeys, in its order; it knows no capital ones."""


class Address(NamedTuple):
    """A gRPC target, and whether TLS is spoken there."""

    target: str
    tls: bool

    def __str__(self) -> str:
        return self.target

    @property
    def host(self) -> str:
        return self.target.removeprefix(_DNS).rpartition(":")[0].strip("[]")

    @property
    def balanced(self) -> bool:
        """Whether calls go round all addresses of the host's name, instead of to the first that answers."""
        return self.target.startswith(_DNS)

    @property
    def local(self) -> bool:
        return self.host == "localhost" or self.host == "::1" or self.host.startswith("127.")

    @property
    def proxy(self) -> str | None:
        """The environment's variable, `name=value`, that sends connections to this host through a proxy, if one does."""
        name = next((name for name in _PROXIES if os.environ.get(name)), None)
        direct = self.local or proxy_bypass(self.host)
        return None if name is None or direct else f"{name}={os.environ[name]}"


Addresses = tuple[Address, ...]
"""One or several servers that serve the same."""


def split_target(url_or_variant: str | Sequence[str] | None) -> tuple[Addresses, str | None]:
    """The addresses and, if a variant was named instead of one, that name. None: the addresses from the environment."""
    usual = os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_ADDRESS
    if url_or_variant is None:
        return parse_addresses(usual), None
    if not isinstance(url_or_variant, str) or re.search(r"[:/.,\s]|^$|^localhost$", url_or_variant):
        return parse_addresses(url_or_variant), None
    return parse_addresses(usual), url_or_variant


def parse_addresses(urls: str | Sequence[str]) -> Addresses:
    """The addresses of a list, or of a text with commas between them; each counts once."""
    found = tuple(dict.fromkeys(parse_address(url.strip()) for url in (urls.split(",") if isinstance(urls, str) else urls)))
    if not found:
        raise InvalidRequestError("server address: expected one at least, got an empty list; write host:port")
    if len({address.tls for address in found}) > 1:
        raise InvalidRequestError(
            f"server address: expected all with TLS or all without, got {', '.join(map(str, found))}; write grpcs:// before each"
        )
    return found


def parse_address(url: str) -> Address:
    """The address that `url` means. The port may be left out: 8001, and 443 with TLS."""
    if url.startswith(_DNS):
        inner = parse_address(url.removeprefix(_DNS))
        return Address(_DNS + inner.target, inner.tls)
    parts = urlsplit(url if "://" in url else f"grpc://{url}")
    cure = "write host:port, grpc://host:port, grpcs://host:port for TLS, or dns:///host:port for all servers of a name"
    if parts.scheme not in _PORTS:
        raise InvalidRequestError(
            f"server address '{url}': this client speaks gRPC, not {parts.scheme}; {cure} (usually port 8001)"
        )
    try:
        port = parts.port or _PORTS[parts.scheme]
    except ValueError as error:
        raise InvalidRequestError(f"server address '{url}': {error}; {cure}") from None
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.username is not None or re.search(r"\s", url):
        raise InvalidRequestError(f"server address '{url}': expected a host and a port only; {cure}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(f"{host}:{port}", parts.scheme == "grpcs")
