"""Where a server is, from what a user writes: `host:port`, `grpc://host:port`, `grpcs://host:port` or a variant's name."""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import urlsplit

from .errors import InvalidRequestError

DEFAULT_ADDRESS = "localhost:8001"
ENVIRONMENT_VARIABLE = "FACECLIP_URL"
_PORTS = {"grpc": 8001, "grpcs": 443}


class Address(NamedTuple):
    """A gRPC target, `host:port`, and whether TLS is spoken there."""

    target: str
    tls: bool

    def __str__(self) -> str:
        return self.target


def split_target(url_or_variant: str | None) -> tuple[Address, str | None]:
    """The address and, if a variant was named instead of one, that name. None: the address from the environment."""
    usual = os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_ADDRESS
    if url_or_variant is None:
        return parse_address(usual), None
    if re.search(r"[:/.]", url_or_variant):
        return parse_address(url_or_variant), None
    return parse_address(usual), url_or_variant


def parse_address(url: str) -> Address:
    """The address that `url` means. The port may be left out: 8001, and 443 with TLS."""
    parts = urlsplit(url if "://" in url else f"grpc://{url}")
    cure = "write host:port, grpc://host:port, or grpcs://host:port for TLS"
    if parts.scheme not in _PORTS:
        raise InvalidRequestError(
            f"server address '{url}': this client speaks gRPC, not {parts.scheme}; {cure} (usually port 8001)"
        )
    try:
        port = parts.port or _PORTS[parts.scheme]
    except ValueError as error:
        raise InvalidRequestError(f"server address '{url}': {error}; {cure}") from None
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.username is not None:
        raise InvalidRequestError(f"server address '{url}': expected a host and a port only; {cure}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(f"{host}:{port}", parts.scheme == "grpcs")
