"""How this package reaches a server: over gRPC and HTTP, never through a proxy that the environment names for other addresses."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from faceclip_serving.contract.errors import UserError

if TYPE_CHECKING:
    import tritonclient.grpc as grpc

_CHANNEL = [("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
"""As `urllib.request.urlopen`."""


class AddressError(UserError):
    """What was said of a connection makes none."""


@dataclass(frozen=True)
class Connection:
    """Where a server's gRPC port is, and what every call there carries. Raises `AddressError`."""

    url: str
    """`host:port`; `grpcs://host:port` for TLS."""
    headers: Mapping[str, str] = field(default_factory=dict)
    root_certificates: Path | None = None
    """Of the authority that signed the server's certificate; None: the machine's own. TLS alone, as the next two."""
    certificate: Path | None = None
    """Ours, with its `key`, where the server asks for one."""
    key: Path | None = None
    server_name: str = ""
    """Whom the server's certificate is made out to; empty: the host of the address."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Request parameters by which we are known, see `contract/callers.py`."""

    def __post_init__(self) -> None:
        for option, path in (("--ca", self.root_certificates), ("--cert", self.certificate), ("--key", self.key)):
            if path is not None and not self.tls:
                raise AddressError(f"{option}: TLS alone has certificates; write the address as grpcs://{self.target}")
            if path is not None and not path.is_file():
                raise AddressError(f"{option}: {path}: no such file")
        if (self.certificate is None) != (self.key is None):
            raise AddressError("--cert and --key: expected both or none; the key is the certificate's")
        if "://" in self.url and urlsplit(self.url).scheme not in ("grpc", "grpcs"):
            raise AddressError(f"url: expected host:port, or grpcs://host:port for TLS, got '{self.url}'")

    @property
    def tls(self) -> bool:
        return self.url.startswith("grpcs://")

    @property
    def target(self) -> str:
        """Host and port."""
        return self.url.partition("://")[2] or self.url


def check_one_server(to: Connection) -> None:
    """Raises `AddressError` where a name stands for several servers: an order would go to any one of them."""
    parts = urlsplit(f"//{to.target}")
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return  # whoever connects hears of it
    for family in (socket.AF_INET, socket.AF_INET6):
        addresses = sorted({str(each[4][0]) for each in found if each[0] is family})
        if len(addresses) > 1:
            raise AddressError(
                f"url: expected one server, got '{parts.hostname}', a name of {', '.join(addresses)}; name each by its address"
                " (with TLS add --server-name)"
            )


def grpc_client(to: Connection) -> grpc.InferenceServerClient:
    """A client to be used in a `with` statement."""
    import tritonclient.grpc as grpc
    from tritonclient.grpc import InferenceServerClientPlugin

    class Headers(InferenceServerClientPlugin):  # type: ignore[misc]
        def __call__(self, request: Any) -> None:
            request.headers.update(to.headers)

    files = {"root_certificates": to.root_certificates, "certificate_chain": to.certificate, "private_key": to.key}
    paths = {name: None if path is None else str(path) for name, path in files.items()}
    channel = [*_CHANNEL, ("grpc.ssl_target_name_override", to.server_name)] if to.server_name else _CHANNEL
    client = grpc.InferenceServerClient(to.target, ssl=to.tls, channel_args=channel, **paths)
    client.register_plugin(Headers())
    return client
