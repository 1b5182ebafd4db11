"""Where a server listens and how long it waits, unless somebody says otherwise. Imports nothing that takes time."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from dataclasses import asdict, dataclass

from faceclip_serving.contract.errors import UserError

START_TIMEOUT_S = 300.0
DRAIN_TIMEOUT_S = 60.0
STALL_TIMEOUT_S = 900.0
"""One step of full-size SDXL took ten minutes on two cores: docs/measured.md."""


class ListenError(UserError):
    """A port or an address at which nobody can listen."""


def check_port(service: str, port: int) -> None:
    """Raises `ListenError` for what is no port. `service`: as in the option that chooses it."""
    if not 0 < port < 65536:
        raise ListenError(f"{service}-port: expected a port from 1 to 65535, got {port}")


@dataclass(frozen=True)
class Ports:
    """TCP ports. Triton listens on the first three, `python -m server run` on the last. Raises `ListenError`."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002
    health: int = 8003

    def __post_init__(self) -> None:
        for service, port in asdict(self).items():
            check_port(service, port)

    @classmethod
    def free(cls) -> Ports:
        """Ports that nobody listens on now, on the loopback address."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(4)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            return cls(*(each.getsockname()[1] for each in sockets))


@dataclass(frozen=True)
class Address:
    """An IP address to listen on. Raises `ListenError` for names, which Triton does not look up, and zones (`%eth0`)."""

    text: str = "127.0.0.1"

    def __post_init__(self) -> None:
        try:
            known = "%" not in self.text and bool(ipaddress.ip_address(self.text))
        except ValueError:
            known = False
        if not known:
            raise ListenError(f"address: expected an IP address such as 127.0.0.1, 0.0.0.0 or ::1, got '{self.text}'")

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.text else socket.AF_INET

    @property
    def for_http(self) -> str:
        """As Triton's HTTP ports want it."""
        return f"ipv6:{self.text}" if ":" in self.text else self.text

    @property
    def for_grpc(self) -> str:
        """As gRPC and URLs want it."""
        return f"[{self.text}]" if ":" in self.text else self.text

    @property
    def reached_at(self) -> str:
        """Where a caller on this machine finds who listens there, for a URL."""
        if ipaddress.ip_address(self.text).is_unspecified:
            return "[::1]" if ":" in self.text else "127.0.0.1"
        return self.for_grpc
