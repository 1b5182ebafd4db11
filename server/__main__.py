"""`python -m server build/tiny-sdxl-cpu`: serve a repository on this machine until Ctrl-C."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .installation import InstallationError
from .process import Ports, ServerError, TritonServer, interruptible


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Starts tritonserver over an assembled repository, waits until a real request succeeds, streams its log,"
        " and stops it cleanly on Ctrl-C or SIGTERM.",
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
    args, options = parser.parse_known_args(argv)
    if not args.repository.is_dir():
        parser.error(f"repository: {args.repository} does not exist; make it with `make repository`")
    started = time.monotonic()
    try:
        with (
            interruptible(),
            TritonServer(
                args.repository, Ports(args.http_port, args.grpc_port, args.metrics_port), args.address, options=options
            ) as server,
        ):
            details = server.wait_ready(args.timeout)
            print(
                f"ready after {time.monotonic() - started:.1f} s: variant {details['variant']}, gRPC {server.url},"
                f" models run by {server.python}; Ctrl-C stops",
                file=sys.stderr,
            )
            return server.wait()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 0
    except (ServerError, InstallationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
