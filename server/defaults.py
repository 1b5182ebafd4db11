"""Where a server listens and how long it waits, unless somebody says otherwise. Imports nothing that takes time."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

START_TIMEOUT_S = 300.0
DRAIN_TIMEOUT_S = 60.0
STALL_TIMEOUT_S = 900.0
"""One step of full-size SDXL took ten minutes on two cores: docs/measured.md."""


@dataclass(frozen=True)
class Ports:
    """TCP ports. Triton listens on the first three, `python -m server run` on the last."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002
    health: int = 8003

    @classmethod
    def free(cls) -> Ports:
        """Ports that nobody listens on now, on the loopback address."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(4)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            return cls(*(each.getsockname()[1] for each in sockets))
