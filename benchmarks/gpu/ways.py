"""Ways of running a component beside its plan, and a trial of one of them: parity, times and GPU memory at all cases.

A trial runs in a process of its own (`python -m benchmarks.gpu.ways JSON`), so that its memory is gone before the next one begins;
each way imports what it needs. All take arrays from the host and give arrays back, so that moving them costs every way alike.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.onnx.example_inputs import example_inputs
from faceclip_serving.contract.components import components
from faceclip_serving.contract.placements import ORT_CPU, ORT_CUDA
from faceclip_serving.contract.tensors import Array, Signature
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..measure import gpu
from ..measure.timing import seconds_of

REFERENCE, EAGER, COMPILED, ONNXRUNTIME = "torch_fp32", "torch_eager", "torch_compile", "onnxruntime"
WAYS = (REFERENCE, EAGER, COMPILED, ONNXRUNTIME)
"""The reference comes first: it keeps its outputs for the others."""
EXACT_WAYS = (ONNXRUNTIME,)
"""Ways that run the exported graph, and so have its tolerance to keep."""

Run = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True)
class WayTrial:
    """One component by one way, at all cases."""

    variant: str
    component: str
    way: str
    folder: str
    """Of the exported component."""
    references: str
    """Folder of the reference's outputs, one file per case."""
    cases: tuple[Mapping[str, int], ...]
    """Named axis -> size."""
    repeats: int
    device: str = "cuda"
    """Or "cpu": the same steps without a GPU, all in FP32, to try them."""


def run_here(trial: WayTrial) -> dict[str, Any]:
    """Loads once, then runs each case; a case that does not fit into memory has an `error`, the others go on."""
    variant = VARIANTS[trial.variant]
    signature = components(variant)[trial.component]
    with ExitStack() as stack:
        on_gpu = stack.enter_context(gpu.Peak())
        started = time.perf_counter()
        run = opened(trial, variant, signature, stack)
        load_s = time.perf_counter() - started
        found = [_case(trial, run, variant, signature, sizes) for sizes in trial.cases]
    memory = {"gpu_peak_bytes": on_gpu.bytes, "gpu_card_bytes": on_gpu.card_bytes}
    return {"load_s": round(load_s, 2), **memory, "cases": found}


def _case(trial: WayTrial, run: Run, variant: Variant, signature: Signature, sizes: Mapping[str, int]) -> dict[str, Any]:
    inputs = example_inputs(variant, signature, sizes)
    try:
        with gpu.Peak() as on_gpu:
            started = time.perf_counter()
            outputs = run(inputs)
            first_s = time.perf_counter() - started
            seconds = [seconds_of(lambda: run(inputs)) for _ in range(trial.repeats)]
    except Exception as error:  # noqa: BLE001  each way has errors of its own for memory that is not there
        return {"sizes": dict(sizes), "error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    return {
        "sizes": dict(sizes),
        "first_s": round(first_s, 4),
        "median_s": round(statistics.median(seconds), 6),
        "fastest_s": round(min(seconds), 6),
        "gpu_peak_bytes": on_gpu.bytes,
        **_parity(trial, signature, sizes, inputs, outputs),
    }


def _parity(
    trial: WayTrial, signature: Signature, sizes: Mapping[str, int], inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> dict[str, Any]:
    """The largest error as a share of the reference's largest value, where there is a reference at these sizes."""
    from export.onnx.parity import Case, compare

    path = Path(trial.references) / f"{trial.component}-{'-'.join(map(str, sizes.values()))}.npz"
    if trial.way == REFERENCE:
        np.savez(path, **outputs)
        return {}
    if not path.exists():
        return {"error_of_largest": None}
    with np.load(path) as stored:
        findings = compare(trial.way, lambda _: dict(outputs), signature, [(Case(sizes, inputs), dict(stored))])
    return {"error_of_largest": float(f"{max(finding.error for finding in findings):.3g}")}


# ------------------------------------------------------------------------------------------------------------------- ways
def _torch(trial: WayTrial, variant: Variant, signature: Signature, _: ExitStack) -> Run:
    """The module that is exported, as torch runs it: FP32 as the reference, else BF16, whose range nothing overflows."""
    import torch

    from export.checkpoint.deferred import fetch_all
    from export.networks.components import build

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    dtype = torch.float32 if trial.way == REFERENCE or trial.device == "cpu" else torch.bfloat16
    module = build(variant, trial.component)
    fetch_all(module)  # moving a deferred weight would move what stands for it
    module.to(trial.device, dtype)
    if trial.way == COMPILED:
        module.compile()
    as_they_are = {"timestep", *(tensor.name for tensor in variant.extras)}

    @torch.no_grad()
    def run(arrays: Mapping[str, Array]) -> dict[str, Array]:
        tensors = []
        for tensor in signature.inputs:
            value = torch.from_numpy(arrays[tensor.name]).to(trial.device)
            tensors.append(value.to(dtype) if value.is_floating_point() and tensor.name not in as_they_are else value)
        outputs = module(*tensors)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {t.name: o.float().cpu().numpy() for t, o in zip(signature.outputs, outputs, strict=True)}

    return run


def _onnxruntime(trial: WayTrial, _: Variant, signature: Signature, __: ExitStack) -> Run:
    from faceclip_serving.models.onnx_component import OnnxComponent

    runtime = ORT_CPU if trial.device == "cpu" else ORT_CUDA
    return OnnxComponent(Path(trial.folder) / runtime.artifact, signature, runtime.providers, {}).run


_OPEN: Mapping[str, Callable[[WayTrial, Variant, Signature, ExitStack], Run]] = {
    REFERENCE: _torch,
    EAGER: _torch,
    COMPILED: _torch,
    ONNXRUNTIME: _onnxruntime,
}


def opened(trial: WayTrial, variant: Variant, signature: Signature, stack: ExitStack) -> Run:
    """The component by the way of `trial`, until `stack` closes."""
    return _OPEN[trial.way](trial, variant, signature, stack)


def tolerance(variant: Variant, component: str, precision: str) -> float:
    """Of the exported graph's outputs, as a share of the reference's largest value."""
    from export.networks.components import network

    return network(variant, component).tolerance[precision]


if __name__ == "__main__":
    _given = json.loads(sys.argv[1])
    print(json.dumps(run_here(WayTrial(**{**_given, "cases": tuple(_given["cases"])}))))
