"""One tritonserver process over an assembled repository: start, readiness, stop.

Ready means that a real, smallest request came back, since a server whose Python model has died still calls itself ready.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from faceclip_serving.contract.errors import UserError

from . import installation
from .probe import ProbeError, probe_all

SHARED_MEMORY = Path("/dev/shm")
_PR_SET_PDEATHSIG = 1
_ERROR_LINE = re.compile(r"E\d{4} |ERROR |error: ")
"""How errors begin in the log: Triton's own, those of our models, and Triton's last words."""
_PLAIN = re.compile(r"[A-Za-z0-9/._+-]+")
_LIBC = ctypes.CDLL(None)


class ServerError(UserError):
    """The server did not start, or died; the message ends with its last log lines."""


@dataclass(frozen=True)
class Ports:
    """TCP ports on the loopback address."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002

    @classmethod
    def free(cls) -> Ports:
        """Three ports that nobody listens on now."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            return cls(*(each.getsockname()[1] for each in sockets))


class _PlainPaths:
    """Names for folders that a shell reads as one word: Triton starts its Python models through a command line without quotes.

    A folder whose path has other characters is reached through a link in a temporary folder.
    """

    def __init__(self) -> None:
        self._links: tempfile.TemporaryDirectory[str] | None = None
        self._count = itertools.count()

    def path(self, folder: Path) -> Path:
        if _PLAIN.fullmatch(str(folder)):
            return folder
        if self._links is None:
            self._links = tempfile.TemporaryDirectory(prefix="faceclip-")
        link = Path(self._links.name) / str(next(self._count))
        link.symlink_to(folder)
        return link

    def close(self) -> None:
        if self._links is not None:
            self._links.cleanup()


class TritonServer:
    """A running server; stop it with `stop` or by leaving the `with` block."""

    def __init__(
        self,
        repository: Path,
        ports: Ports | None = None,
        address: str = "127.0.0.1",
        log: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Starts the process. `log`: file for its output, else this process's stderr. `options`: more of tritonserver's own."""
        self.repository = repository
        self.ports = ports or Ports()
        self.log = log
        self._check_free(address)
        self._plain = _PlainPaths()
        folder = self._plain.path(repository.resolve())
        found = installation.find(self._plain.path(repository.resolve().parent) / ".tritonserver")
        self.python = found.python
        self._prefix = f"faceclip_{uuid.uuid4().hex[:8]}_"
        command = [
            str(found.binary),
            f"--model-repository={folder}",
            f"--backend-directory={found.backends}",
            f"--cache-directory={found.caches}",
            f"--backend-config=python,shm-region-prefix-name={self._prefix}",
            *(f"--{service}-address={address}" for service in ("http", "grpc", "metrics")),
            f"--http-port={self.ports.http}",
            f"--grpc-port={self.ports.grpc}",
            f"--metrics-port={self.ports.metrics}",
            "--exit-timeout-secs=20",
            "--disable-auto-complete-config",  # every config.pbtxt is complete; guessing would start each model twice
            *options,
        ]
        with contextlib.ExitStack() as stack:
            output = sys.stderr if log is None else stack.enter_context(log.open("wb"))
            self._process = subprocess.Popen(
                command,
                cwd="/",  # the embedded Python imports from the working directory first; nothing of ours lies there
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if log else output,
                env={**os.environ, **found.environment},
                start_new_session=True,  # Ctrl-C reaches the launcher alone, which then stops the server in order
                preexec_fn=_die_with_parent,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        """gRPC address for clients."""
        return f"127.0.0.1:{self.ports.grpc}"

    def wait_ready(self, timeout_s: float = 300) -> dict[str, dict[str, Any]]:
        """Waits until a smallest real request to each deployment succeeds; name -> details. Raises `ServerError`."""
        deadline = time.monotonic() + timeout_s
        while True:
            if self._process.poll() is not None:
                self.stop()
                raise ServerError(f"tritonserver ended with code {self._process.returncode}{self._log_tail()}")
            try:
                return probe_all(self.url, timeout_s=max(1.0, deadline - time.monotonic()))
            except ProbeError as error:
                if error.final or time.monotonic() > deadline:
                    self.stop()
                    raise ServerError(f"the server did not become ready: {error}{self._log_tail()}") from None
            time.sleep(0.2)

    def shared_memory(self) -> list[Path]:
        """The shared-memory files of its Python models."""
        return list(SHARED_MEMORY.glob(self._prefix + "*"))

    def wait(self) -> int:
        """Blocks until the process ends; its exit code."""
        return self._process.wait()

    def stop(self, timeout_s: float = 30) -> None:
        """Asks the server to end, insists after `timeout_s`, and removes what it left in shared memory."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # models whose server died
        self._process.wait()
        for region in self.shared_memory():
            region.unlink(missing_ok=True)
        self._plain.close()

    def __enter__(self) -> TritonServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _check_free(self, address: str) -> None:
        for service, port in (("http", self.ports.http), ("grpc", self.ports.grpc), ("metrics", self.ports.metrics)):
            with socket.socket() as test:
                test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    test.bind((address, port))
                except OSError as error:
                    raise ServerError(
                        f"{service} port {port} on {address}: {error.strerror}; choose another with --{service}-port"
                    ) from None

    def _log_tail(self) -> str:
        if self.log is None or not self.log.exists():
            return ""
        lines = self.log.read_text(errors="replace").splitlines()
        errors = [line.replace("\\n", "\n") for line in lines if _ERROR_LINE.match(line)]
        return "\n" + "\n".join([*errors[:3], "…", *lines[-10:]])


def _die_with_parent() -> None:
    """The server ends when its launcher is killed, whatever the way."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM behaves like Ctrl-C, so that `with TritonServer(...)` stops the server on both, also in a background job."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
