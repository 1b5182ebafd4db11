"""One component by one way of running it, at all cases, in a process of its own: parity, times, GPU memory.

`measure` starts `python -m benchmarks.gpu.gpu_process JSON` and reads the last line of its output, so that the memory of one way is
gone before the next one begins. A run takes arrays from the host and gives arrays back, so that moving them costs every way alike.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.engine.build import build_engine, this_machine
from export.engine.device import open_device
from export.engine.options import Options
from export.engine.tensorrt import running
from export.networks.components import build, network
from export.onnx.example_inputs import example_inputs
from export.onnx.parity import Case
from export.onnx.parity import compare as compare_outputs
from faceclip_serving.contract.placements import ONNX_FILE, ORT_CPU, ORT_CUDA, PLAN_FILE
from faceclip_serving.contract.signatures import components
from faceclip_serving.contract.tensors import Array, Range, Signature
from faceclip_serving.contract.variant import Variant
from faceclip_serving.contract.variants import VARIANTS
from faceclip_serving.models.onnx_component import OnnxComponent

from ..measure import gpu
from ..measure.own_process import run_module

REFERENCE, EAGER, COMPILED, ONNXRUNTIME, TENSORRT = "torch_fp32", "torch_eager", "torch_compile", "onnxruntime", "tensorrt"
WAYS = (REFERENCE, EAGER, COMPILED, ONNXRUNTIME, TENSORRT)
"""The reference comes first: it keeps its outputs for the others."""
EXACT_WAYS = (ONNXRUNTIME, TENSORRT)
"""Ways that run the exported graph, and so have its tolerance to keep."""
PRECISION = "fp16"

Run = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True)
class Job:
    variant: str
    component: str
    way: str
    folder: str
    """Of the exported component; a plan is built there."""
    references: str
    """Folder of the reference's outputs, one file per case."""
    cases: tuple[Mapping[str, int], ...]
    """Named axis -> size."""
    repeats: int
    device: str = "cuda"
    """Or "cpu": the same steps without a GPU, all in FP32, to try them."""


def measure(job: Job, timeout_s: float | None = None) -> dict[str, Any]:
    """What `run_here` found, or `error`: why there is nothing."""
    return run_module(__name__, asdict(job), timeout_s)


def run_here(job: Job) -> dict[str, Any]:
    """Loads once, then runs each case; a case that does not fit into memory has an `error`, the others go on."""
    variant = VARIANTS[job.variant]
    signature = components(variant)[job.component]
    with ExitStack() as stack:
        on_gpu = stack.enter_context(gpu.Peak())
        started = time.perf_counter()
        run = opened(job, variant, signature, stack)
        load_s = time.perf_counter() - started
        found = [_case(job, run, variant, signature, sizes) for sizes in job.cases]
    memory = {"gpu_peak_bytes": on_gpu.bytes, "gpu_card_bytes": on_gpu.card_bytes}
    return {"load_s": round(load_s, 2), **memory, "cases": found}


def _case(job: Job, run: Run, variant: Variant, signature: Signature, sizes: Mapping[str, int]) -> dict[str, Any]:
    inputs = example_inputs(variant, signature, sizes)
    try:
        with gpu.Peak() as on_gpu:
            started = time.perf_counter()
            outputs = run(inputs)
            first_s = time.perf_counter() - started
            seconds = []
            for _ in range(job.repeats):
                started = time.perf_counter()
                run(inputs)
                seconds.append(time.perf_counter() - started)
    except Exception as error:  # noqa: BLE001  each way has errors of its own for memory that is not there
        return {"sizes": dict(sizes), "error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    return {
        "sizes": dict(sizes),
        "first_s": round(first_s, 4),
        "median_s": round(statistics.median(seconds), 6),
        "fastest_s": round(min(seconds), 6),
        "gpu_peak_bytes": on_gpu.bytes,
        **_parity(job, signature, sizes, inputs, outputs),
    }


def _parity(
    job: Job, signature: Signature, sizes: Mapping[str, int], inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> dict[str, Any]:
    """The largest error as a share of the reference's largest value, where there is a reference at these sizes."""
    path = Path(job.references) / f"{job.component}-{'-'.join(map(str, sizes.values()))}.npz"
    if job.way == REFERENCE:
        np.savez(path, **outputs)
        return {}
    if not path.exists():
        return {"error_of_largest": None}
    with np.load(path) as stored:
        findings = compare_outputs(job.way, lambda _: dict(outputs), signature, [(Case(sizes, inputs), dict(stored))])
    return {"error_of_largest": float(f"{max(finding.error for finding in findings):.3g}")}


# ------------------------------------------------------------------------------------------------------------------- ways
def _torch(job: Job, variant: Variant, signature: Signature, _: ExitStack) -> Run:
    """The module that is exported, as torch runs it: FP32 as the reference, else BF16, whose range nothing overflows."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    dtype = torch.float32 if job.way == REFERENCE or job.device == "cpu" else torch.bfloat16
    module = build(variant, job.component).to(job.device, dtype)
    if job.way == COMPILED:
        module.compile()
    as_they_are = {"timestep", *(tensor.name for tensor in variant.extras)}

    @torch.no_grad()
    def run(arrays: Mapping[str, Array]) -> dict[str, Array]:
        tensors = []
        for tensor in signature.inputs:
            value = torch.from_numpy(arrays[tensor.name]).to(job.device)
            tensors.append(value.to(dtype) if value.is_floating_point() and tensor.name not in as_they_are else value)
        outputs = module(*tensors)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {t.name: o.float().cpu().numpy() for t, o in zip(signature.outputs, outputs, strict=True)}

    return run


def _onnxruntime(job: Job, _: Variant, signature: Signature, __: ExitStack) -> Run:
    runtime = ORT_CPU if job.device == "cpu" else ORT_CUDA
    return OnnxComponent(Path(job.folder) / ONNX_FILE, signature, runtime.providers, {}).run


def _tensorrt(job: Job, variant: Variant, signature: Signature, stack: ExitStack) -> Run:
    """A plan for all cases, optimised for the first, built unless it is there."""
    folder = Path(job.folder)
    build_engine(variant, job.component, PRECISION, folder, case_bounds(job.cases), Options(), this_machine())
    return stack.enter_context(running(folder / PLAN_FILE, signature, open_device()))


_OPEN: Mapping[str, Callable[[Job, Variant, Signature, ExitStack], Run]] = {
    REFERENCE: _torch,
    EAGER: _torch,
    COMPILED: _torch,
    ONNXRUNTIME: _onnxruntime,
    TENSORRT: _tensorrt,
}


def opened(job: Job, variant: Variant, signature: Signature, stack: ExitStack) -> Run:
    """The component by the way of `job`, until `stack` closes."""
    return _OPEN[job.way](job, variant, signature, stack)


def case_bounds(cases: tuple[Mapping[str, int], ...]) -> dict[str, Range]:
    """Smallest, first and largest size of each axis."""
    sizes = {axis: [case[axis] for case in cases] for axis in cases[0]}
    return {axis: Range(min(found), found[0], max(found)) for axis, found in sizes.items()}


def tolerance(variant: Variant, component: str) -> float:
    """Of the exported graph's outputs, as a share of the reference's largest value."""
    return network(variant, component).tolerance[PRECISION]


if __name__ == "__main__":
    _job = json.loads(sys.argv[1])
    print(json.dumps(run_here(Job(**{**_job, "cases": tuple(_job["cases"])}))))
