"""A server and the gateway before it, from nothing: `make studio`, or `make gateway`. Ctrl-C ends both, the gateway first."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from export.commandline import exit_code
from export.paths import ROOT
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.sdxl import NANO
from faceclip_serving.contract.variants.table import VARIANTS
from gateway.ports import refuse_port
from gateway.settings import Settings, SettingsError, add_flags, read_settings
from server.defaults import Ports
from server.signals import interruptible

STOP_S = 120.0
"""Longer than either takes for what it has begun."""
_FURTHER = "Further options are those of the gateway, such as --port: python -m gateway run --help"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.studio", description=__doc__, epilog=_FURTHER, allow_abbrev=False)
    parser.add_argument("--variant", default=NANO.name, choices=sorted(VARIANTS), help="what is served (default: %(default)s)")
    parser.add_argument(
        "--repository", type=Path, help="a repository that is assembled already, in the place of the variant's on `cpu`"
    )
    args, options = parser.parse_known_args(argv)
    return exit_code(lambda: start(args, options))


def start(args: argparse.Namespace, options: Sequence[str]) -> int:
    """What would end the gateway is found before minutes are spent on a repository."""
    try:
        settings = gateway_settings(options)
        refuse_port(settings.host, settings.port)
    except SettingsError as error:
        raise UserError(str(error)) from None
    return run(args.repository or _built(args.variant), options)


def _built(variant: str) -> Path:
    from export.repository.from_nothing import build_repository  # torch, seconds that nobody waits who has a repository

    return build_repository(VARIANTS[variant], CPU)


def gateway_settings(options: Sequence[str]) -> Settings:
    """What the gateway will make of its options. Raises `SettingsError`."""
    parser = argparse.ArgumentParser(prog="python -m gateway run", allow_abbrev=False)
    add_flags(parser)
    return read_settings(parser.parse_args(options))


def run(repository: Path, options: Sequence[str]) -> int:
    """Until Ctrl-C, SIGTERM, or one of the two has ended: then the other is ended too. `options`: of the gateway."""
    ports = Ports.free()
    listening = [f"--{name}-port={getattr(ports, name)}" for name in ("http", "grpc", "metrics", "health")]
    server = [sys.executable, "-m", "server", "run", str(repository), *listening]
    gateway = [
        *(sys.executable, "-m", "gateway", "run", f"--server=127.0.0.1:{ports.grpc}"),
        f"--server-metrics=http://127.0.0.1:{ports.metrics}/metrics",
        *options,
    ]
    with contextlib.suppress(KeyboardInterrupt), interruptible(), running(server) as first, running(gateway) as second:
        while first.poll() is None and second.poll() is None:
            time.sleep(0.2)
        raise UserError(f"the {'server' if first.poll() is not None else 'gateway'} has ended; its last lines above say why")
    return 0


@contextlib.contextmanager
def running(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process of a group of its own, so that Ctrl-C reaches it through here, in order."""
    paths = os.pathsep.join(path for path in (str(ROOT / "client"), os.environ.get("PYTHONPATH", "")) if path)
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
