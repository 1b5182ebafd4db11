"""Where webhooks may go: hosts that the operator named, at addresses that are nobody's own network.

A host is looked up at each delivery, every address that it has is judged, and the connection goes to one that was judged: a name whose
address changes in between reaches nothing. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from ..failures import WebhookRefusedError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
MAX_URL = 2048
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Destinations:
    """`hosts`: names (https, any port; `*.example.org` for all below), or whole origins such as `http://10.1.2.3:9000`. `networks`:
    whose addresses are allowed although they are private or loopback."""

    hosts: tuple[str, ...] = ()
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    def check(self, url: str) -> SplitResult:
        """What can be said without looking the host up. Raises `WebhookRefusedError`."""
        if len(url) > MAX_URL or not url.isprintable() or not url.isascii():
            raise WebhookRefusedError(f"webhook_url: expected an address of at most {MAX_URL} printable ASCII characters")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise WebhookRefusedError(f"webhook_url: expected an address ({error})") from None
        host = parts.hostname
        if parts.scheme not in ("http", "https") or not host or parts.username is not None or parts.password is not None:
            raise WebhookRefusedError("webhook_url: expected https://HOST/…, without a user and password in it")
        if not any(_matches(rule.lower(), parts.scheme, host, port) for rule in self.hosts):
            cure = "the operator allows hosts by --webhook-host"
            raise WebhookRefusedError(f"webhook_url: {parts.scheme} to host '{host}' is not allowed; {cure}")
        try:
            literal = ipaddress.ip_address(host)
        except ValueError:
            return parts
        self._judge(host, literal)
        return parts

    async def resolve(self, host: str, port: int) -> str:
        """An address of the host to connect to, all of them judged. Raises `WebhookRefusedError`; `OSError` where it has none."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        for address in addresses:
            self._judge(host, address)
        return str(addresses[0])

    def _judge(self, host: str, address: Address) -> None:
        real = _embedded(address)
        allowed = any(real in network for network in self.networks if network.version == real.version)
        if not allowed and (not real.is_global or real.is_multicast or real.is_reserved):
            raise WebhookRefusedError(
                f"webhook_url: host '{host}' is at {address}, which is a private, loopback or reserved address"
            )


def _matches(rule: str, scheme: str, host: str, port: int | None) -> bool:
    if "://" in rule:
        return rule.rstrip("/") in {
            f"{scheme}://{_bracketed(host)}:{port or default_port(scheme)}",
            *([f"{scheme}://{_bracketed(host)}"] if port is None else []),
        }
    if scheme != "https":
        return False
    return host.endswith(rule[1:]) and len(host) > len(rule) - 1 if rule.startswith("*.") else host == rule


def default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to; else itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        tunnelled = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        return tunnelled or address
    return address
