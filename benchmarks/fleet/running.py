"""`server fleet` as a process, with servers that need no card."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from server.defaults import START_TIMEOUT_S, Ports
from server.direct import Connection
from server.fleet.fleet import ASK_TIMEOUT_S
from server.health import HealthError, ask_health
from server.keys import operator_parameters
from server.models import model_processes

from ..measure.running import ServingError

APART = 10
"""Between the ports of one server and those of the next."""


class Fleet:
    """Started at once; `until_started` waits for it. What it says goes to a file."""

    def __init__(self, repository: Path, servers: int, log: Path, *options: str) -> None:
        ports = Ports.free()
        self.url = f"127.0.0.1:{ports.grpc}"
        self._health, self._log = f"127.0.0.1:{ports.health}", log
        first = _free_row(servers)
        self.grpc_ports = [first + APART * number + 1 for number in range(servers)]
        self.metrics_ports = [port + 1 for port in self.grpc_ports]
        named = [f"--port={ports.grpc}", f"--health-port={ports.health}", f"--first-port={first}"]
        gpus = ",".join(str(number) for number in range(servers))
        command = [sys.executable, "-m", "server", "fleet", str(repository), "--emulate", f"--gpus={gpus}", *named, *options]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file)

    def said(self, text: str) -> list[str]:
        """The lines with that text in them."""
        return [line for line in self._log.read_text(errors="replace").splitlines() if text in line]

    def until(self, condition: Callable[[], Any], timeout_s: float = START_TIMEOUT_S) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (found := condition()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ServingError(
                    f"the fleet did not do what was waited for:\n{self._log.read_text(errors='replace')[-2000:]}"
                )
            time.sleep(0.05)
        return found

    def until_started(self) -> None:
        self.until(lambda: self.said("serving at") and self.ready_servers() == len(self.grpc_ports))

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether the fleet takes work, and the servers as its health port tells of them."""
        try:
            return True, dict(json.loads(ask_health(self._health, "ready", 2 * ASK_TIMEOUT_S))["servers"])
        except HealthError:
            return False, {}

    def ready_servers(self) -> int:
        return sum(server["ready"] for server in self.ready()[1].values())

    def connection(self, number: int) -> Connection:
        """An operator's, to one server past the proxy."""
        url = f"127.0.0.1:{self.grpc_ports[number]}"
        return Connection(url, parameters=operator_parameters(url))

    def launcher(self, number: int) -> psutil.Process:
        """The process of that server's `server run`."""
        for child in psutil.Process(self.process.pid).children():
            if f"--grpc-port={self.grpc_ports[number]}" in child.cmdline():
                return child
        raise ServingError(f"server {number} does not run")

    def kill(self, number: int) -> None:
        """As when a machine goes down: a server and all that it has started, without a word."""
        root = self.launcher(number)
        for each in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                each.kill()

    def kill_model(self, number: int, model: str) -> None:
        """The process of one model of that server."""
        (triton,) = self.launcher(number).children()
        pid = next(pid for pid, name in model_processes(triton.pid).items() if name == model)
        psutil.Process(pid).kill()

    def restart(self) -> None:
        """Begins a rolling restart."""
        self.process.send_signal(signal.SIGUSR1)

    def end(self, timeout_s: float = 90.0) -> int:
        """Tells it to stop, where it has not; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


@contextmanager
def running(repository: Path, servers: int, log: Path, *options: str) -> Iterator[Fleet]:
    """A started fleet; killed at the end, if it has not ended by then."""
    fleet = Fleet(repository, servers, log, *options)
    try:
        fleet.until_started()
        yield fleet
    finally:
        members = psutil.Process(fleet.process.pid).children(recursive=True) if fleet.process.poll() is None else []
        fleet.process.kill()
        fleet.process.wait()
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.kill()


def _free_row(servers: int) -> int:
    """A first port after which nobody listens on those of so many servers."""
    for first in range(20_000, 32_000, 100):
        if all(_is_free(first + APART * number + port) for number in range(servers) for port in range(4)):
            return first
    raise ServingError("no free ports between 20000 and 32000")


def _is_free(port: int) -> bool:
    with socket.socket() as test:
        test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            test.bind(("127.0.0.1", port))
            return True
    return False
