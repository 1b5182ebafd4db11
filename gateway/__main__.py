"""`python -m gateway run` answers HTTP until Ctrl-C; `python -m gateway keys` makes and ends API keys."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys

from .keys.command import add_commands
from .settings import SettingsError, add_flags, read_settings


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser("run", help="answer HTTP until Ctrl-C", allow_abbrev=False)
    add_flags(run)
    run.set_defaults(run=_run)
    add_commands(commands)
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
    from .serve import serve  # here, since it brings the whole web server

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return serve(read_settings(args))


if __name__ == "__main__":
    sys.exit(main())
