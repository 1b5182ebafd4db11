"""Whether this machine can serve a placement: packages, driver, card and its free memory, one line each.

Exit code 1 where something is missing, with what to do. `make serve` asks this before minutes are spent.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from faceclip_serving.contract.placements import CUDA_CURE, CUDA_PROVIDER, Execution, Placement, Runtime, placement_of
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.models.tensorrt_package import Card, PackageError, find_card, use

from ..commandline import add_placement, add_runtime, add_variant
from ..onnx.wanted import WEIGHT_BITS
from .errors import EngineError
from .record import sm_of

OLDEST_DRIVER = 580
"""Of CUDA 13, which the packages are built for."""
OLDEST_RTX = 75
"""Compute capability of RTX 20."""
OLDEST: Mapping[str, int] = {"fp8": 89, **dict.fromkeys(WEIGHT_BITS, 86)}
"""Precision -> the compute capability from which on TensorRT for RTX has products that read it: RTX 40, and RTX 30."""
_SERIES_OF = {86: "RTX 30", 89: "RTX 40"}
NOT_RTX = (80, *range(90, 120))
"""Compute capabilities of datacenter cards, which TensorRT for RTX does not run on."""
SERIES = (OLDEST_RTX, 86, 89, 120)
"""Compute capabilities of RTX 20, 30, 40 and 50."""


@dataclass(frozen=True)
class Check:
    """One thing that serving needs."""

    what: str
    found: str
    problem: str = ""
    """What was expected and what to do; empty where all is well."""

    @property
    def line(self) -> str:
        return f"{'no' if self.problem else 'ok'}  {self.what}: {self.found}{f'; {self.problem}' if self.problem else ''}"


def checks(placement: Placement) -> Iterator[Check]:
    """What a placement needs, in the order in which it makes sense to mend it."""
    on_card = [each for each in placement.components.values() if each.runtime.instance_kind == "KIND_GPU"]
    if not on_card:
        yield Check("card", "none is needed")
        return
    for runtime in dict.fromkeys(each.runtime for each in on_card):
        yield _package(runtime)
    try:
        card = find_card(placement.gpu)
    except PackageError as error:
        yield Check("driver", "none", str(error))
        return
    yield from _driver_and_card(card, on_card)
    if placement.gpu_bytes and card.total_bytes is not None and card.free_bytes is not None:
        yield _memory(card.total_bytes, card.free_bytes, placement.gpu_bytes)


def _package(runtime: Runtime) -> Check:
    if runtime.package:
        try:
            return Check(runtime.package, use(runtime))
        except PackageError as error:
            return Check(runtime.package, "not usable", str(error))
    if runtime.backend != "python":
        return Check(runtime.name, "Triton's own backend, which its image brings and the wheel does not")
    if find_spec("onnxruntime") is None:
        return Check("onnxruntime", "not installed", CUDA_CURE)
    import onnxruntime

    has = CUDA_PROVIDER in onnxruntime.get_available_providers()
    return Check("onnxruntime", onnxruntime.__version__, "" if has else f"expected {CUDA_PROVIDER}; {CUDA_CURE}")


def _driver_and_card(card: Card, wanted: list[Execution]) -> Iterator[Check]:
    major = card.driver.partition(".")[0]
    too_old = not major.isdecimal() or int(major) < OLDEST_DRIVER
    yield Check("driver", card.driver, f"expected {OLDEST_DRIVER} or later, for CUDA 13; update it" if too_old else "")
    found, problem = f"{card.name}, compute capability {card.capability}", ""
    try:
        sm = sm_of(card.capability)
    except EngineError as error:
        yield Check("card", card.name, str(error))
        return
    lacking = [each for each in wanted if sm < oldest(each)]
    if any(each.runtime.ahead_of_time for each in wanted) and not runs_rtx(sm):
        problem = (
            "TensorRT for RTX runs on RTX 20 to 50; choose `--placement gpu-ort`, or `--runtime tensorrt` in NVIDIA's container"
        )
    elif lacking:
        most = max(lacking, key=oldest)
        problem = f"{most.precision.upper()} needs {_SERIES_OF[oldest(most)]} or later; choose another placement"
    yield Check("card", found, problem)


def oldest(execution: Execution) -> int:
    """The least compute capability of a card that has products for its precision; 0: any.

    What TensorRT for RTX does with integer weights is its own; of FP8 every runtime needs a card that has it.
    """
    return OLDEST.get(execution.precision, 0) if execution.runtime.ahead_of_time or execution.precision == "fp8" else 0


def runs_rtx(sm: int) -> bool:
    """Whether TensorRT for RTX runs on cards of this compute capability, e.g. 89."""
    return sm >= OLDEST_RTX and sm not in NOT_RTX


def _memory(total: int, free: int, needed: int) -> Check:
    found = f"{free / 1e9:.2f} GB free of {total / 1e9:.2f}"
    problem = ""
    if total < needed:
        problem = f"the placement is for cards with {needed / 1e9:.2f} GB to use; choose a smaller one"
    elif free < needed:
        problem = f"the placement may use {needed / 1e9:.2f} GB; end what else is on the card"
    return Check("memory", found, problem)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    add_placement(parser)
    add_runtime(parser)
    parser.add_argument("--emulate", action="store_true", help="the placement without its card: nothing is needed")


def run(args: argparse.Namespace) -> int:
    placement = placement_of(VARIANTS[args.variant], args.placement)
    placement = placement.on(args.runtime) if args.runtime else placement
    found = list(checks(placement.emulate() if args.emulate else placement))
    for each in found:
        print(each.line, file=sys.stderr)
    fits = not any(each.problem for each in found)
    told = [{"what": each.what, "found": each.found, "problem": each.problem} for each in found]
    print(json.dumps({"variant": args.variant, "placement": placement.label, "ready": fits, "checks": told}))
    return 0 if fits else 1
