"""A server for a measurement: built if need be, on free ports, stopped at the end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import Placement
from faceclip_serving.contract.variants.variant import Variant
from server.defaults import START_TIMEOUT_S, Ports
from server.health import HealthError, ask_health

from .sleeping import Sleep, with_sleeping_denoiser

if TYPE_CHECKING:
    from faceclip import FaceCLIPPipeline
    from server.process import TritonServer


PLAIN = ("marks=none", f"policy={Path(__file__).with_name('unchecked.toml')}")
"""Settings of a server whose pictures are compared to the last bit: nothing is drawn over them, and nothing is checked."""


class ServingError(UserError):
    """The server that a measurement started did not do what was asked."""


@contextmanager
def serving(
    variant: Variant,
    placement: Placement,
    checkpoint: Path | None = None,
    sleep: Sleep | None = None,
    settings: Sequence[str] = (),
) -> Iterator[tuple[TritonServer, FaceCLIPPipeline]]:
    """A ready server over the variant's repository, and a client of it. `sleep`: its denoiser sleeps instead of computing.

    `settings`: of the server, such as `PLAIN`.
    """
    from export.repository.from_nothing import build_repository  # torch
    from faceclip import FaceCLIPError, FaceCLIPPipeline
    from server.process import TritonServer

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        repository = build_repository(variant, placement, checkpoint)
        if sleep is not None:
            repository = stack.enter_context(with_sleeping_denoiser(repository, sleep))
        server = stack.enter_context(TritonServer(repository, Ports.free(), log=Path(folder) / "log", settings=settings))
        server.wait_ready()
        print(f"serving {repository} at {server.url}", file=sys.stderr)
        try:
            with FaceCLIPPipeline.from_pretrained(server.url) as pipe:
                yield server, pipe
        except FaceCLIPError as error:
            raise ServingError(f"a request of the measurement failed: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Supervised:
    """A `server run` of its own, as in production."""

    process: subprocess.Popen[bytes]
    ports: Ports

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.ports.grpc}"


@contextmanager
def supervised(repository: Path, *options: str) -> Iterator[Supervised]:
    """A started `server run` on free ports; told to end at the end, if it has not ended by then. `options`: more of its own."""
    ports = Ports.free()
    named = [f"--{name}-port={getattr(ports, name)}" for name in ("http", "grpc", "metrics", "health")]
    command = [sys.executable, "-m", "server", "run", str(repository), *named, *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not _started(ports):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise ServingError(f"the server did not start: {' '.join(command)}")
                time.sleep(0.2)
            yield Supervised(process, ports)
        finally:
            process.terminate()


def _started(ports: Ports) -> bool:
    try:
        ask_health(f"127.0.0.1:{ports.health}", "start", timeout_s=5)
    except HealthError:
        return False
    return True
