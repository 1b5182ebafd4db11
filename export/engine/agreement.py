"""Whether a plan computes what ONNX Runtime does with the file that it was built from, within the tolerance of its component.

ONNX Runtime computes on the CPU, half precision as FP32, so the difference is the plan's alone. Cases: those of the export's parity as
far as the plan takes them, and the plan's usual shape. What a tolerance means is said in `parity`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from faceclip_serving.contract.components import components
from faceclip_serving.contract.placements import Execution
from faceclip_serving.contract.tensors import Array, Bounds, Signature
from faceclip_serving.contract.variants.variant import Variant
from faceclip_serving.models.trt_component import TrtComponent

from ..onnx.example_inputs import example_inputs
from .record import Purpose

if TYPE_CHECKING:
    from ..onnx.parity import Case, Run  # at run time inside functions, since torch takes seconds to import


class Loaded(Protocol):
    """A plan that can be run."""

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]: ...

    def close(self) -> None: ...


Load = Callable[[Path, Signature, Execution, Bounds], Loaded]
"""Loads a plan: `TrtComponent`, or what stands for it where a machine without a card goes through the steps."""


def verify_cases(variant: Variant, signature: Signature, limits: Bounds) -> list[Case]:
    """Parity's cases within the plan's bounds, each once, and the shape that the plan was optimised for."""
    from ..onnx import parity

    usual = {axis: found.opt for axis, found in limits.items()}
    found = [*parity.cases(variant, signature, limits), parity.Case(usual, example_inputs(variant, signature, usual, "usual"))]
    return list({tuple(sorted(case.sizes.items())): case for case in found}.values())


def verify_run(variant: Variant, component: str, precision: str, onnx: Path, limits: Bounds, run: Run) -> dict[str, Any]:
    """Compares `run`, a function of named arrays, with ONNX Runtime on `onnx`. Raises `ParityError` beyond the tolerance."""
    from ..networks.components import network
    from ..onnx import parity

    signature = components(variant)[component]
    tolerance = network(variant, component).tolerance[precision]
    reference = parity.onnx_run(onnx, signature)
    findings = []
    for case in verify_cases(variant, signature, limits):
        print(f"{component}: {case.name}", file=sys.stderr, flush=True)
        findings += parity.compare("tensorrt", run, signature, [(case, reference(case.inputs))])
    parity.require(findings, component, precision, tolerance)
    return {"component": component, "precision": precision, "tolerance": tolerance, "findings": parity.summary(findings)}


def verify_file(purpose: Purpose, plan: Path, onnx: Path, limits: Bounds, load: Load | None = None) -> dict[str, Any]:
    """The findings for a plan, wherever it lies. Raises `ParityError` beyond the tolerance, and `PlanError` if it does not load."""
    signature = components(purpose.variant)[purpose.component]
    loaded_by = load or partial(TrtComponent, gpu=purpose.placement.gpu)
    with closing(loaded_by(plan, signature, purpose.execution, limits)) as loaded:
        return verify_run(purpose.variant, purpose.component, purpose.precision, onnx, limits, loaded.run)
