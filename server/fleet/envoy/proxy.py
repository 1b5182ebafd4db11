"""What is said of a proxy before several servers: all that its configuration follows from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.names import DEFAULT_DEPLOYMENT

from ...defaults import Ports


class ProxyError(UserError):
    """What was said of a proxy makes no configuration."""


@dataclass(frozen=True)
class Server:
    """Where one server is. `host`: a name or an IP address; a name stands for all the addresses that it has."""

    host: str
    grpc: int = Ports.grpc
    health: int = Ports.health


@dataclass(frozen=True)
class Tls:
    """Files in PEM form."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Listener:
    """Where callers come in. Without `tls` it belongs on the loopback address, or behind another proxy."""

    address: str
    port: int
    tls: Tls | None = None


@dataclass(frozen=True)
class Upstream:
    """TLS between the proxy and the servers."""

    authority: Path
    """Who signed the servers' certificates, PEM. They are made out to the names by which `Server.host` calls them."""
    own: Tls | None = None
    """What the proxy shows, where servers ask for a certificate."""


@dataclass(frozen=True)
class Tokens:
    """Which JSON web tokens let a caller in."""

    issuer: str
    audience: str
    jwks: str
    """The issuer's public keys: a file, or an address that begins with https://."""
    tenant_claim: str = "tenant"
    """What in a token names the tenant; one that is no text, or empty, or with blanks around it, lets nobody in."""

    @property
    def remote(self) -> bool:
        return "://" in self.jwks


@dataclass(frozen=True)
class Quota:
    """Calls of models that a tenant may begin: `requests` at once, as many again within each `seconds`. Each Envoy counts for itself."""

    requests: int
    seconds: float
    tenant: str = ""
    """Empty: each tenant that has no quota of its own."""

    def __post_init__(self) -> None:
        if not 1 <= self.requests < 2**32 or not 0.05 <= self.seconds <= 1e9:  # what Envoy takes
            raise ProxyError(
                f"quota: expected 1 request or more, below 2^32, in 0.05 to 1e9 s, got {self.requests} in {self.seconds} s"
            )


def socket_address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


@dataclass(frozen=True)
class Proxy:
    """Raises `ProxyError`."""

    servers: Sequence[Server]
    listeners: Sequence[Listener] = (Listener("127.0.0.1", 8081),)
    deployments: Sequence[str] = (DEFAULT_DEPLOYMENT,)
    tokens: Tokens | None = None
    """None: whoever reaches a listener is let in."""
    quotas: Sequence[Quota] = ()
    upstream: Upstream | None = None
    by_face: bool = False
    """Whether calls with the same `FACE_HEADER` go to the same server, as long as that is not much busier than others. Of use where
    encoders run on the host's processor; elsewhere they are a thousandth of a picture, and the least busy server is the better one."""
    memory_gib: int = 4
    """That the proxy may take, see `memory.py`."""
    admin: Mapping[str, Any] = field(default_factory=lambda: socket_address("127.0.0.1", 9901))
    """Address of Envoy's own operator: whoever reaches it can stop the proxy."""

    def __post_init__(self) -> None:
        if not (self.servers and self.listeners and self.deployments):
            raise ProxyError("proxy: expected one server, one listener and one deployment at least")
        if self.quotas and self.tokens is None:
            raise ProxyError("quota: expected tokens, which say who a tenant is; without them anybody could be any tenant")
        names = [quota.tenant for quota in self.quotas]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ProxyError(f"quota: expected one for each tenant, got {len(twice)} for '{twice[0] or 'any'}'")
        if self.tokens and (not self.tokens.tenant_claim or "." in self.tokens.tenant_claim):
            raise ProxyError(
                "tenant claim: expected a name without dots, which Envoy takes for claims within claims, got"
                f" '{self.tokens.tenant_claim}'"
            )
        if self.tokens and self.tokens.remote and not self.tokens.jwks.startswith("https://"):
            raise ProxyError(f"jwks: expected a file or an https:// address, got '{self.tokens.jwks}'")
