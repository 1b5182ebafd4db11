"""Several servers behind one address.

--simulate   10, 100 and 1,000 GPUs, simulated: spread, autoscaling, start of servers, queues; needs nothing
"""

from __future__ import annotations

import argparse

from ..measure.report import emit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--simulate", action="store_true", help="the simulation of many GPUs")


def run(args: argparse.Namespace) -> int:
    from .simulate import simulate  # numpy

    emit("fleet-simulation", simulate())
    return 0
