"""`python -m server run`: one server from its start to its end, in order.

It drains before it stops. It ends, with an error, when the server or one of its models has died: whatever started it starts it again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .control import ControlError, drain
from .health import HealthPort
from .process import STOP_TIMEOUT_S, Ports, ServerError, TritonServer, check_free, interruptible
from .watch import Watch


def supervise(
    repository: Path,
    ports: Ports,
    address: str,
    options: Sequence[str],
    start_timeout_s: float,
    drain_timeout_s: float,
    stall_timeout_s: float,
    start_size: tuple[int, int] | None = None,
) -> None:
    """Serves until SIGTERM or Ctrl-C. Raises `ServerError` if the server did not start or died."""
    check_free("health", ports.health, address)
    with (
        interruptible(),
        TritonServer(repository, ports, address, options=options) as server,
        Watch(server, stall_timeout_s) as watch,
        HealthPort(address, ports.health, watch),
    ):
        try:
            _serve(server, watch, start_timeout_s, start_size)
        except KeyboardInterrupt:
            watch.stopping = True
            try:
                if watch.started:
                    _drain(server, watch, drain_timeout_s)
                watch.end()
                server.stop(STOP_TIMEOUT_S if watch.started else 1)
            except KeyboardInterrupt:
                server.kill()
    print("stopped", file=sys.stderr)


def _serve(server: TritonServer, watch: Watch, start_timeout_s: float, start_size: tuple[int, int] | None) -> None:
    started = time.monotonic()
    try:
        ready = server.wait_ready(start_timeout_s, start_size)
    except ServerError:
        if watch.dead is not None:
            raise _died(watch.dead) from None
        raise
    watch.started = True
    offered = ", ".join(f"{name} (variant {details['variant']})" for name, details in ready.items())
    print(
        f"ready after {time.monotonic() - started:.1f} s: {offered}, gRPC {server.url}, health on port {server.ports.health},"
        f" models run by {server.python}; Ctrl-C drains and stops",
        file=sys.stderr,
    )
    server.wait()
    raise _died(watch.dead) if watch.dead is not None else ServerError(server.why_ended())


def _died(what: str) -> ServerError:
    return ServerError(f"{what}; its log is above. The server was ended: start it again")


def _drain(server: TritonServer, watch: Watch, timeout_s: float) -> None:
    print(f"draining: waits up to {timeout_s:.0f} s for what is in flight; a second signal stops at once", file=sys.stderr)
    try:
        left = drain(server.url, timeout_s, tell_left, server.interfaces)
    except ControlError:  # no answer: there is nothing to wait for
        left = 0
    if watch.dead is not None:
        raise _died(watch.dead)
    if left:
        print(f"the time is up: {in_flight(left)} cut", file=sys.stderr)


def tell_left(left: int) -> None:
    """Says what a drain waits for."""
    print(f"draining: {in_flight(left)} in flight", file=sys.stderr)


def in_flight(count: int) -> str:
    return "1 request is" if count == 1 else f"{count} requests are"
