"""`python -m server run build/tiny-sdxl-cpu` serves until Ctrl-C; `probe`, `drain` and `resume` talk to a server that runs."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from faceclip_serving.contract.errors import UserError

from .control import drain, resume
from .probe import probe_all
from .process import Ports, ServerError, TritonServer, interruptible


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m server", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_run(commands)
    for name, function, text in (
        ("probe", _probe, "send a smallest real request to each deployment and print the details"),
        ("drain", _drain, "take no more work, wait until what is in flight has ended; then the server may be stopped"),
        ("resume", _resume, "take work again after a drain"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--url", default=f"localhost:{Ports().grpc}", help="gRPC address (default: %(default)s)")
        command.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="default: %(default)s")
        command.set_defaults(run=function)
    args, options = parser.parse_known_args(argv)
    if options and args.run is not _run:
        parser.error(f"unknown arguments: {' '.join(options)}")
    args.options = options
    try:
        code: int = args.run(args)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    return code


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "run",
        help="serve a repository until Ctrl-C",
        description="Starts tritonserver over an assembled repository, waits until a real request succeeds, streams its log,"
        " and stops it cleanly on Ctrl-C or SIGTERM. Further arguments go to tritonserver as they are.",
        epilog="Listens on the loopback address unless --address says otherwise: the server has no authentication of its own.",
    )
    parser.add_argument("repository", type=Path, help="e.g. build/tiny-sdxl-cpu, made by `python -m export repository`")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    ports = Ports()
    parser.add_argument("--http-port", type=int, default=ports.http, help="default: %(default)s")
    parser.add_argument("--grpc-port", type=int, default=ports.grpc, help="default: %(default)s")
    parser.add_argument("--metrics-port", type=int, default=ports.metrics, help="default: %(default)s")
    parser.add_argument(
        "--timeout", type=float, default=300, metavar="SECONDS", help="time to become ready (default: %(default)s)"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if not args.repository.is_dir():
        raise ServerError(f"repository: {args.repository} does not exist; make it with `make repository`")
    started = time.monotonic()
    ports = Ports(args.http_port, args.grpc_port, args.metrics_port)
    try:
        with interruptible(), TritonServer(args.repository, ports, args.address, options=args.options) as server:
            ready = server.wait_ready(args.timeout)
            offered = ", ".join(f"{name} (variant {details['variant']})" for name, details in ready.items())
            print(
                f"ready after {time.monotonic() - started:.1f} s: {offered}, gRPC {server.url},"
                f" models run by {server.python}; Ctrl-C stops",
                file=sys.stderr,
            )
            return server.wait()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 0


def _probe(args: argparse.Namespace) -> int:
    print(json.dumps(probe_all(args.url, args.timeout)))
    return 0


def _drain(args: argparse.Namespace) -> int:
    left = drain(args.url, args.timeout)
    print("drained: nothing is in flight" if not left else f"time is up: {left} requests are still in flight", file=sys.stderr)
    return 1 if left else 0


def _resume(args: argparse.Namespace) -> int:
    resume(args.url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
