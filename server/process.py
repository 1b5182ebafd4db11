"""One tritonserver process over an assembled repository: start, readiness, stop.

Ready means that a real, smallest request came back, since a server whose Python model has died still calls itself ready.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from faceclip_serving.contract.callers import TENANT_HEADER
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import Placement
from faceclip_serving.contract.settings import VARIABLE, most_in_flight, read_orders, resolve

from . import installation, threads
from . import repository as assembled
from .defaults import START_TIMEOUT_S, Address
from .defaults import Ports as Ports
from .keys import Keys, remember
from .log import Log
from .marks import prepare
from .policy import try_policies
from .probe import ProbeError, probe
from .tls import absolute, own_connection

SHARED_MEMORY = Path("/dev/shm")
_PR_SET_PDEATHSIG = 1
_PLAIN = re.compile(r"[A-Za-z0-9/._+-]+")
_LIBC = ctypes.CDLL(None)
_WORKSPACE, _LOCK = "faceclip-", "lock"


EXIT_TIMEOUT_S = 5
"""How long Triton waits for what is in flight when it is told to end; a drain comes before, since Triton knows nothing of a request's next
step. Short: with one idle connection open to its HTTP ports, it waits for the whole of this (2.51)."""
STOP_TIMEOUT_S = 30
"""After so long its end is no longer waited for."""


SPARE_CALLS = 32
"""Of one model to others, for those who are about to be refused."""


ALLOCATION = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
}
"""For glibc, where the environment says nothing of it. Each of many threads would keep what it has freed in an arena of its own. And a
block of the size of a photograph would go back to the kernel each time, to be fetched anew, page by page, for the next one."""


class ServerError(UserError):
    """The server did not start, or died; the message ends with what its log says of it."""


class _Workspace:
    """A temporary folder of one server, which holds links only. Those of launchers that were killed go when another starts."""

    def __init__(self) -> None:
        self._remove_stale()
        self._folder = tempfile.TemporaryDirectory(prefix=_WORKSPACE)
        self._count = itertools.count()
        self.path = Path(self._folder.name)
        self._lock = (self.path / "new").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # held as long as this process lives, whatever ends it
        (self.path / "new").rename(self.path / _LOCK)

    @staticmethod
    def _remove_stale() -> None:
        for lock in Path(tempfile.gettempdir()).glob(f"{_WORKSPACE}*/{_LOCK}"):
            with contextlib.suppress(OSError), lock.open("r+") as file:  # another user's, or somebody holds it
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)

    def plain(self, folder: Path) -> Path:
        """A path to `folder` that a shell reads as one word: Triton starts its Python models by a command line without quotes."""
        if _PLAIN.fullmatch(str(folder)):
            return folder
        link = self.path / str(next(self._count))
        link.symlink_to(folder)
        return link

    def close(self) -> None:
        self._folder.cleanup()
        self._lock.close()


class TritonServer:
    """A running server; stop it with `stop` or by leaving the `with` block."""

    def __init__(
        self,
        repository: Path,
        ports: Ports | None = None,
        address: Address | None = None,
        log: Path | None = None,
        options: Sequence[str] = (),
        settings: Sequence[str] = (),
        client: tuple[Path, Path] | None = None,
    ) -> None:
        """Starts the process. `log`: file for its output, else this process's stderr. `options`: more of tritonserver's own.

        `settings`: of the models, `NAME=VALUE` or `DEPLOYMENT.NAME=VALUE`, see `contract/settings.py`.
        `client`: see `tls.own_connection`.
        """
        self.repository = repository
        self.interfaces = assembled.interfaces(repository)
        placements = assembled.placements_of(repository)
        told = read_orders(placements, list(settings))
        calls = inner_calls(placements, told, assembled.sampler_parameters(repository))
        check_threads(assembled.python_instances(repository), calls)
        prepare(placements, told)
        try_policies(placements, told)
        self.keys = Keys()
        self.ports = ports or Ports()
        self.log = log
        address = address or Address()
        self.url = f"{address.reached_at}:{self.ports.grpc}"
        """gRPC address for clients on this machine."""
        self.connection = own_connection(self.url, options, self.keys.parameters, client)
        """For whoever started it, who may do all that its models may."""
        for service, port in (("http", self.ports.http), ("grpc", self.ports.grpc), ("metrics", self.ports.metrics)):
            check_free(f"--{service}-port", port, address)
        self._workspace = _Workspace()
        folder = self._workspace.plain(repository.resolve())
        found = installation.find(self._workspace.path)
        self.python = found.python
        self._prefix = f"faceclip_{uuid.uuid4().hex[:8]}_"
        command = [
            str(found.binary),
            f"--model-repository={folder}",
            f"--backend-directory={found.backends}",
            f"--cache-directory={found.caches}",
            f"--backend-config=python,shm-region-prefix-name={self._prefix}",
            f"--backend-config=python,thread-pool-size={calls}",
            f"--http-address={address.for_http}",
            f"--grpc-address={address.for_grpc}",
            f"--metrics-address={address.for_http}",
            f"--http-port={self.ports.http}",
            f"--grpc-port={self.ports.grpc}",
            f"--metrics-port={self.ports.metrics}",
            f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
            f"--grpc-header-forward-pattern=^{TENANT_HEADER}$",
            "--disable-auto-complete-config",  # every config.pbtxt is complete; guessing would start each model twice
            *absolute(options),
        ]
        self._said = Log()
        environment = {**ALLOCATION, **os.environ, **found.environment, **self.keys.environment, VARIABLE: json.dumps(told)}
        self._key_file = remember(self.ports.grpc, self.keys.operator, address.text)
        self._keeper = threading.Thread(target=self._keep, args=(command, environment), daemon=True, name="tritonserver")
        self._started, self._over = (
            threading.Event(),
            threading.Event(),
        )  # a thread whose `join` is interrupted seems to have ended
        self._failure: OSError | None = None
        self._keeper.start()
        try:
            self._started.wait()
        except BaseException:  # Ctrl-C: nobody has this object yet, so nobody else can stop the server
            self._started.wait()
            if self._failure is None:
                self.stop(0)
            raise
        if self._failure is not None:
            self._clean()
            raise self._failure

    def _keep(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts the process, passes its log on, and lives as long: Linux ends a child with the *thread* that started it."""
        try:
            with contextlib.ExitStack() as stack:
                self._process = subprocess.Popen(
                    command,
                    cwd="/",  # the embedded Python imports from the working directory first; nothing of ours lies there
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE if self.log is None else stack.enter_context(self.log.open("wb")),
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,  # Ctrl-C reaches the launcher alone, which then stops the server in order
                    preexec_fn=_die_with_parent,
                )
        except OSError as error:
            self._failure = error
            return
        finally:
            self._started.set()
        if self._process.stdout is not None:
            for line in self._process.stdout:
                with contextlib.suppress(OSError, ValueError):  # nobody reads our stderr any more: the server goes on
                    sys.stderr.buffer.write(line)
                    sys.stderr.buffer.flush()
                self._said.add(line.decode(errors="replace"))
        self._process.wait()
        self._over.set()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S, size: tuple[int, int] | None = None) -> dict[str, dict[str, Any]]:
        """Waits until a smallest real request to each deployment succeeds; name -> details. Raises `ServerError`.

        `size`: of its picture, height and width; None: the least.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            if self.ended:
                self.stop()
                raise ServerError(self.why_ended())
            try:
                left_s = max(1.0, deadline - time.monotonic())
                return {name: probe(self.connection, left_s, name, known, size) for name, known in self.interfaces.items()}
            except ProbeError as error:
                time.sleep(0.2)  # a server that has just died is not asked why it did not answer
                if not self.ended and (error.final or time.monotonic() > deadline):
                    self.stop()
                    raise ServerError(f"the server did not become ready: {error}{self.reason()}") from None

    def shared_memory(self) -> list[Path]:
        """The shared-memory files of its Python models."""
        return list(SHARED_MEMORY.glob(self._prefix + "*"))

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None or self._over.is_set()

    def wait(self) -> None:
        """Blocks until the process has ended."""
        while not self.ended:  # in pieces: a signal's handler runs between two of them
            self._over.wait(0.5)

    def why_ended(self) -> str:
        """One line that says how it ended, and those of its log that say why."""
        return f"tritonserver ended with code {self._process.returncode}{self.reason()}"

    def kill(self) -> None:
        """Ends the server and its models at once; callers see their connection break."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Asks the server to end, insists after `timeout_s`, and removes what it left in shared memory."""
        try:
            if not self.ended:
                self._process.terminate()
            deadline = time.monotonic() + timeout_s
            while not self.ended and time.monotonic() < deadline:
                self._over.wait(0.1)
        finally:
            self.kill()  # also models whose server died
            self._over.wait()
            for region in self.shared_memory():
                region.unlink(missing_ok=True)
            self._clean()

    def _clean(self) -> None:
        self._workspace.close()
        if self._key_file is not None:
            self._key_file.unlink(missing_ok=True)

    def __enter__(self) -> TritonServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def reason(self) -> str:
        """What its log says of a failure, each line begins with a line break."""
        if self.log is not None:
            return Log(self.log.read_text(errors="replace").splitlines()).reason() if self.log.exists() else ""
        return self._said.reason()


def inner_calls(
    placements: Mapping[str, Placement],
    told: Mapping[str, Mapping[str, str]],
    configured: Mapping[str, Mapping[str, str]],
) -> int:
    """How many calls of other models one model may have under way: the backend's pool, where further ones would wait for them.

    A public model has one for every request in flight, and needs more to ask for places and to keep them. `told`: as `read_orders`
    returns it. `configured`: deployment -> parameters in the sampler's config.pbtxt.
    """
    environment = {VARIABLE: json.dumps(told)}
    settings = [resolve(placement, name, configured.get(name), environment) for name, placement in placements.items()]
    return max(most_in_flight(each["max_active"], each["max_waiting"]) for each in settings) + SPARE_CALLS


def check_threads(models: int, calls: int) -> None:
    """Raises `ServerError` where this machine does not allow the threads of so many models. `calls`: as `inner_calls` returns it."""
    needed, (most, limit) = threads.needed(models, calls), threads.allowed()
    if needed > most:
        raise ServerError(
            f"max_active, max_waiting: they need {needed} threads, since each of {models} models has one for every request in flight"
            f" ({calls}), and {limit} allows {most} here; set smaller ones, or allow more"
        )


def check_free(option: str, port: int, address: Address) -> None:
    """Raises `ServerError` where nobody can listen on that port. `option`: what chooses it, such as `--health-port`."""
    with socket.socket(address.family) as test:
        test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            test.bind((address.text, port))
        except OSError as error:
            raise ServerError(
                f"{option[2:].replace('-', ' ')} {port} on {address.text}: {error.strerror}; stop what listens there, or choose another"
                f" with {option}"
            ) from None


def _die_with_parent() -> None:
    """The server ends when its launcher is killed, whatever the way."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
