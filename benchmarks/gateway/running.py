"""The gateway and the server behind it as processes that may be killed at any moment and started again where they were."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from server.defaults import START_TIMEOUT_S, Ports
from server.health import HealthError, ask_health

from ..measure.running import PLAIN, ServingError

UP_TIMEOUT_S = 30.0


class Process:
    """One of them. `log`: its stderr goes there."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command, self._log = [sys.executable, "-m", *command], log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        """As when a machine goes down: it and all that it has started, without a word."""
        if self._process is not None and self._process.poll() is None:
            root = psutil.Process(self._process.pid)
            tree = [root, *root.children(recursive=True)]
            for each in tree:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            self._process.wait()
            psutil.wait_procs(tree, timeout=10)

    def end(self, timeout_s: float = 60.0) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()

    def _alive(self, until: float) -> None:
        if self._process is None or self._process.poll() is not None or time.monotonic() > until:
            tail = self._log.read_text(errors="replace")[-2000:]
            raise ServingError(f"it did not start: {' '.join(self._command)}\n{tail}")


class Server(Process):
    """`server run` on ports that stay its own."""

    def __init__(self, repository: Path, log: Path, settings: Sequence[str] = PLAIN) -> None:
        self.ports = Ports.free()
        ports = [f"--{name}-port={getattr(self.ports, name)}" for name in ("http", "grpc", "metrics", "health")]
        options = [option for setting in settings for option in ("--set", setting)]
        super().__init__(["server", "run", str(repository), *ports, *options], log)

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.ports.grpc}"

    def wait_ready(self) -> None:
        until = time.monotonic() + START_TIMEOUT_S
        while True:
            self._alive(until)
            try:
                ask_health(f"127.0.0.1:{self.ports.health}", "start", timeout_s=5)
                return
            except HealthError:
                time.sleep(0.2)


class Gateway(Process):
    """`gateway run` on a port and a data folder that stay its own."""

    def __init__(self, server: str, data: Path, log: Path, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(["gateway", "run", "--server", server, "--data", str(data), "--port", str(port), *options], log)

    def wait_ready(self, of_server: bool = False) -> None:
        """`of_server`: until a server is ready, too."""
        until = time.monotonic() + UP_TIMEOUT_S
        while True:
            self._alive(until)
            try:
                if httpx.get(f"{self.url}/{'readyz' if of_server else 'healthz'}", trust_env=False).is_success:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.05)


@contextmanager
def started(*processes: Server | Gateway) -> Iterator[None]:
    """Started in their order, ready, ended at the end."""
    try:
        for each in processes:
            each.start()
            each.wait_ready()
        yield
    finally:
        for each in reversed(processes):
            each.end()
