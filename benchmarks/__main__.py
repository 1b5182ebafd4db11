"""`python -m benchmarks <measurement>`; the last line on stdout is one JSON document."""

from __future__ import annotations

import argparse
import sys

from .gpu import gpu_verify, report_file
from .measure import parity
from .memory import onestep, vram
from .quality import command as quality
from .speed import compare, latency, overhead, precision, serving, soak, step_cache

_COMMANDS = (
    parity, overhead, compare, latency, vram, onestep, serving, soak, step_cache, precision, quality, report_file, gpu_verify,
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="measurement")
    for command in _COMMANDS:
        command.add_command(subparsers)
    args = parser.parse_args(argv)
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    sys.exit(main())
