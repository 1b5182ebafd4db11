"""`python -m gateway run` answers HTTP until Ctrl-C; `python -m gateway keys` makes and ends API keys."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import urllib.error
import urllib.request

from .allocation import few_arenas
from .keys.command import add_commands
from .settings import Settings, SettingsError, add_flags, read_settings


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser("run", help="answer HTTP until Ctrl-C", allow_abbrev=False)
    add_flags(run)
    run.set_defaults(run=_run)
    add_commands(commands)
    health = commands.add_parser(
        "health", help="ask a gateway whether it runs, or with --ready whether it can draw; exit code 1 if not"
    )
    health.add_argument("--url", default=f"http://127.0.0.1:{Settings.port}", help="default: %(default)s")
    health.add_argument("--ready", action="store_true", help="whether some server behind it is ready")
    health.set_defaults(run=_health)
    args = parser.parse_args(argv)
    try:
        code: int = args.run(args)
    except (SettingsError, OSError, sqlite3.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _run(args: argparse.Namespace) -> int:
    few_arenas()
    from .serve import serve  # here, since it brings the whole web server, and threads

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return serve(read_settings(args))


def _health(args: argparse.Namespace) -> int:
    question = "readyz" if args.ready else "healthz"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{args.url.rstrip('/')}/{question}", timeout=4) as answer:
            print(answer.read().decode())
            return 0
    except urllib.error.HTTPError as error:
        print(f"error: {error.read(1000).decode(errors='replace')}", file=sys.stderr)
    except (OSError, ValueError) as error:
        print(f"error: {args.url}: no answer ({error})", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
