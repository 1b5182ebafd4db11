"""`python -m benchmarks <measurement>`; the last line on stdout is one JSON document."""

from __future__ import annotations

import argparse
import sys

from . import compare, gpu_verify, latency, onestep, overhead, parity, quality, report_file, serving, soak, vram


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="measurement")
    for command in (parity, overhead, compare, latency, vram, onestep, serving, soak, quality, report_file, gpu_verify):
        command.add_command(subparsers)
    args = parser.parse_args(argv)
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    sys.exit(main())
