"""`python -m benchmarks <measurement>`; the last line on stdout is one JSON document."""

from __future__ import annotations

import argparse
import sys

from . import compare, latency, onestep, overhead, parity, precision, quality, serving, soak, step_cache, vram


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="measurement")
    commands = (parity, overhead, compare, latency, vram, onestep, serving, soak, step_cache, precision, quality)
    for command in commands:
        command.add_command(subparsers)
    args = parser.parse_args(argv)
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    sys.exit(main())
