"""`python -m server run build/tiny-sdxl-cpu` serves until Ctrl-C; the other commands talk to a server that runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from faceclip_serving import __version__
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.numbers import seconds, seconds_or_none
from faceclip_serving.contract.settings import SETTINGS, marks_folder

from . import audit, consent
from .defaults import DRAIN_TIMEOUT_S, STALL_TIMEOUT_S, START_TIMEOUT_S, Address, Ports, check_port
from .direct import Connection, check_one_server
from .fleet import command as fleet
from .health import QUESTIONS, ask_health
from .keys import operator_parameters
from .signals import held_back, interruptible

# What needs gRPC is imported by the command that needs it: `health` runs every few seconds.

PORTS = Ports()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m server", description=__doc__)
    parser.add_argument("--version", action="version", version=f"faceclip-triton {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_run(commands)
    fleet.add(commands)
    for name, function, text in (
        ("probe", _probe, "send a smallest real request to each deployment and print the details"),
        ("drain", _drain, "take no more work, wait until what is in flight has ended; then the server may be stopped"),
        ("resume", _resume, "take work again after a drain"),
        (
            "status",
            _status,
            "print what each deployment has in flight, its settings, marks, checks and rules, and what its weights allow",
        ),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if function is _drain:
            command.add_argument(
                "--linger",
                type=seconds_or_none,
                default=0.0,
                metavar="SECONDS",
                help="so long work is taken still, while /ready says no: until proxies have heard of it (default: %(default)s)",
            )
        where = command.add_mutually_exclusive_group()
        where.add_argument(
            "--url", default=f"localhost:{PORTS.grpc}", help="gRPC address, grpcs://host:port for TLS (default: %(default)s)"
        )
        where.add_argument("--grpc-port", type=int, metavar="PORT", help="the same as --url localhost:PORT, as `run` spells it")
        limit = seconds_or_none if function is _drain else seconds
        command.add_argument("--timeout", type=limit, default=600, metavar="SECONDS", help="default: %(default)s")
        command.add_argument(
            "--deployment",
            action="append",
            metavar="NAME",
            help="act on this one; may be repeated (default: all, which the server names)",
        )
        command.add_argument(
            "--header",
            action="append",
            default=[],
            type=_header,
            metavar="NAME=VALUE",
            help="of every call, e.g. triton-grpc-protocol-admin-key=KEY where the server's configuration is closed",
        )
        for option, what in (
            ("--ca", "certificate of the authority that signed the server's (default: the machine's own)"),
            ("--cert", "own certificate, where the server asks for one"),
            ("--key", "its key"),
        ):
            command.add_argument(option, type=Path, metavar="FILE", help=f"TLS: {what}")
        command.add_argument(
            "--server-name",
            default="",
            metavar="NAME",
            help="TLS: whom the server's certificate is made out to (default: the host)",
        )
        command.set_defaults(run=function)
    _add_health(commands)
    _add_credentials(commands)
    consent.add(commands)
    audit.add(commands)
    args, options = parser.parse_known_args(argv)
    if options and args.run not in (_run, fleet.run):
        parser.error(f"unknown arguments: {' '.join(options)}")
    if args.run is fleet.run:
        parser.parse_known_args(["run", str(args.repository), *options])  # what each server would refuse is refused once
    args.options = options
    if args.run is not _run:  # what tritonserver logs is not ours to choose
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own lines say no more than our errors
    try:
        code: int = args.run(args)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    return code


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "run",
        help="serve a repository until Ctrl-C",
        description="Starts tritonserver over an assembled repository, waits until a real request succeeds, and streams its log."
        " Answers GET /start, /ready and /live on the health port. Ends with an error when a model's process dies. On SIGTERM or"
        " Ctrl-C it takes no more work, waits for what is in flight, and stops; a second signal stops at once. Further arguments"
        " go to tritonserver as they are.",
        epilog="Listens on the loopback address unless --address says otherwise: callers are not authenticated.",
        allow_abbrev=False,
    )
    parser.add_argument("repository", type=Path, help="e.g. build/tiny-sdxl-cpu, made by `python -m export repository`")
    parser.add_argument("--address", default="127.0.0.1", help="IP address to listen on (default: %(default)s)")
    parser.add_argument("--http-port", type=int, default=PORTS.http, help="default: %(default)s")
    parser.add_argument("--grpc-port", type=int, default=PORTS.grpc, help="default: %(default)s")
    parser.add_argument("--metrics-port", type=int, default=PORTS.metrics, help="default: %(default)s")
    parser.add_argument("--health-port", type=int, default=PORTS.health, help="default: %(default)s")
    for name, limit, default, text in (
        ("--timeout", seconds, START_TIMEOUT_S, "time to become ready"),
        (
            "--linger",
            seconds_or_none,
            0.0,
            "behind a proxy: so long a stop goes on taking work, while /ready says no; longer than the proxy needs to hear of it",
        ),
        ("--drain-timeout", seconds_or_none, DRAIN_TIMEOUT_S, "time that a stop gives to what is in flight"),
        (
            "--stall-timeout",
            seconds,
            STALL_TIMEOUT_S,
            "a sampler one of whose threads (step loop, schedules, encoders, decoder, messages) is at one piece of work for longer is"
            " not live",
        ),
    ):
        parser.add_argument(name, type=limit, default=default, metavar="SECONDS", help=f"{text} (default: %(default)s)")
    parser.add_argument(
        "--start-size", type=_size, metavar="HxW", help="of the first request (default: the least; for engines of one)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="NAME=VALUE",
        help="a setting of every deployment, or of one: DEPLOYMENT.NAME=VALUE; may be repeated. "
        + "; ".join(f"{setting.name}: {setting.doc}" for setting in SETTINGS).replace("%", "%%"),
    )
    parser.add_argument(
        "--commercial", action="store_true", help="use is commercial: end where a licence of the weights does not allow it"
    )
    for option, what in (("--cert", "certificate"), ("--key", "its key")):
        parser.add_argument(
            option,
            type=Path,
            metavar="FILE",
            help=f"{what} for this command's own calls, where options make the server ask for one (default: the server's own)",
        )
    parser.set_defaults(run=_run)


def _add_health(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "ask a server's health port; exit code 1 if an answer is no"
    parser = commands.add_parser("health", help=text, description=text)
    parser.add_argument("questions", nargs="*", metavar="question", help=f"of {', '.join(QUESTIONS)} (default: ready)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", default=f"localhost:{PORTS.health}", help="address of the health port (default: %(default)s)")
    where.add_argument("--health-port", type=int, metavar="PORT", help="the same as --url localhost:PORT, as `run` spells it")
    parser.add_argument("--timeout", type=seconds, default=5, metavar="SECONDS", help="default: %(default)s")
    parser.set_defaults(run=_health)


def _add_credentials(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "own keys and certificate, by which pictures are marked"
    actions = commands.add_parser("credentials", help=text, description=text).add_subparsers(required=True, metavar="action")
    init = actions.add_parser(
        "init",
        help="make an authority, a certificate and keys",
        description="Makes an own authority, a certificate that signs pictures, and a key of the invisible mark. Private keys can be"
        " read by their owner alone. Prints the root's fingerprint: whoever trusts it sees who made a picture.",
    )
    init.add_argument(
        "--organisation", required=True, metavar="NAME", help="whom the certificate names: who offers the service"
    )
    init.add_argument("--folder", type=Path, metavar="FOLDER", help="default: where `run` looks, see marks_folder there")
    init.add_argument("--replace", action="store_true", help="in place of an authority that is there; the mark's key stays")
    init.set_defaults(run=_credentials)


def _credentials(args: argparse.Namespace) -> int:
    from faceclip_serving.marking.authority import ROOT, make

    made = make(args.folder or Path(marks_folder()), args.organisation, args.replace)
    told = {
        "folder": str(made.folder),
        "organisation": made.organisation,
        "root": str(made.folder / ROOT),
        "root_sha256": made.root_sha256,
        "expires": made.expires.isoformat(),
    }
    print(json.dumps(told))
    return 0


def _run(args: argparse.Namespace) -> int:
    ports = Ports(args.http_port, args.grpc_port, args.metrics_port, args.health_port)
    timeouts = (args.timeout, args.linger, args.drain_timeout, args.stall_timeout)
    client = (args.cert, args.key) if args.cert or args.key else None
    with contextlib.suppress(KeyboardInterrupt), interruptible():
        with held_back():
            from .repository import check_commercial
            from .supervise import supervise
        if args.commercial:
            check_commercial(args.repository)
        supervise(
            args.repository, ports, Address(args.address), args.options, args.settings, *timeouts, args.start_size, client
        )
    print("stopped", file=sys.stderr)
    return 0


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got '{text}'")
    return name.lower(), value


def _probe(args: argparse.Namespace) -> int:
    from .probe import probe

    to, names = _target(args)
    print(json.dumps({name: probe(to, args.timeout, name) for name in names}))
    return 0


def _drain(args: argparse.Namespace) -> int:
    from .control import drain
    from .supervise import tell_left

    to, names = _target(args)
    check_one_server(to)
    left = drain(to, names, args.timeout, tell_left, linger_s=args.linger)
    others = "; whatever else the server has goes on working" if args.deployment else ""
    print(f"time is up: {left}" if left else f"drained: nothing is in flight in {', '.join(names)}{others}", file=sys.stderr)
    return 1 if left else 0


def _resume(args: argparse.Namespace) -> int:
    from .control import resume

    to, names = _target(args)
    check_one_server(to)
    resume(to, names)
    return 0


def _status(args: argparse.Namespace) -> int:
    from faceclip_serving.contract.operations import Status

    from .control import ask, told_by

    to, names = _target(args)
    print(json.dumps({name: {**ask(to, Status(), name), **told_by(to, name)} for name in names}, indent=1))
    return 0


def _health(args: argparse.Namespace) -> int:
    url = _url(args.url, "health", args.health_port)
    for question in args.questions or ["ready"]:
        print(ask_health(url, question, args.timeout))
    return 0


def _target(args: argparse.Namespace) -> tuple[Connection, list[str]]:
    """The server's gRPC port with what calls carry, and the deployments that are meant."""
    from .probe import deployments

    url = _url(args.url, "grpc", args.grpc_port)
    to = Connection(url, dict(args.header), args.ca, args.cert, args.key, args.server_name)
    to = replace(to, parameters=operator_parameters(to.target))
    return to, args.deployment or deployments(to)


def _url(url: str, service: str, port: int | None) -> str:
    if port is None:
        return url
    check_port(service, port)
    return f"localhost:{port}"


if __name__ == "__main__":
    sys.exit(main())
