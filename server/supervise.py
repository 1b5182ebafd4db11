"""`python -m server run`: one server from its start to its end, in order.

It drains before it stops. It ends, with an error, when the server or one of its models has died: whatever started it starts it again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .control import Left, cut, drain
from .defaults import Address
from .health import HealthPort
from .process import STOP_TIMEOUT_S, Ports, ServerError, TritonServer, check_free
from .watch import Watch


def supervise(
    repository: Path,
    ports: Ports,
    address: Address,
    options: Sequence[str],
    settings: Sequence[str],
    start_timeout_s: float,
    linger_s: float,
    drain_timeout_s: float,
    stall_timeout_s: float,
    start_size: tuple[int, int] | None = None,
    client: tuple[Path, Path] | None = None,
) -> None:
    """Serves until `KeyboardInterrupt`. Raises `ServerError` if the server did not start or died.

    `linger_s`: how long a stop goes on taking work while it says that it is not ready, so that proxies hear of it before it refuses.
    """
    check_free("--health-port", ports.health, address)
    with (
        TritonServer(repository, ports, address, options=options, settings=settings, client=client) as server,
        Watch(server, stall_timeout_s) as watch,
        HealthPort(address, ports.health, watch),
    ):
        try:
            _serve(server, watch, start_timeout_s, start_size)
        except KeyboardInterrupt:
            watch.stopping = True
            try:
                if watch.started:
                    drain_before_stop(server, watch, drain_timeout_s, linger_s)
                watch.end()
                server.stop(STOP_TIMEOUT_S if watch.started else 1)
            except KeyboardInterrupt:
                server.kill()


def _serve(server: TritonServer, watch: Watch, start_timeout_s: float, start_size: tuple[int, int] | None) -> None:
    started = time.monotonic()
    try:
        ready = server.wait_ready(start_timeout_s, start_size)
    except ServerError:
        if watch.dead is not None:
            raise ServerError(f"{watch.dead}{server.reason()}") from None
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


def drain_before_stop(server: TritonServer, watch: Watch, timeout_s: float, linger_s: float = 0.0) -> None:
    """Waits for what is in flight; says what is cut. `linger_s`: see `control.drain`. Raises `ServerError` if a model died meanwhile."""
    print(f"draining: waits up to {timeout_s:.0f} s for what is in flight; a second signal stops at once", file=sys.stderr)
    left = drain(server.connection, server.interfaces, timeout_s, tell_left, lambda: server.ended, linger_s)
    if watch.dead is not None:
        raise _died(watch.dead)
    if left:
        print(f"the time is up, and this is cut: {left}", file=sys.stderr)
        cut(server.connection, server.interfaces)


def tell_left(left: Left) -> None:
    """Says what a drain waits for."""
    print(f"draining: {left}", file=sys.stderr)
