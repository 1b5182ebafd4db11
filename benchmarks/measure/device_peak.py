"""The best this device does right now: matrix products per second and memory bandwidth, measured, not looked up.

On the CPU both torch and ONNX Runtime multiply, and the better counts; on a GPU torch multiplies in half precision. Knows how to
measure; what follows from it is `floor`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper

from .floor import Peak
from .report import THREADS
from .timing import seconds_of

CPU_SIDES, GPU_SIDES = (512, 1024, 1536), (4096, 8192)
"""Sides of the square matrices tried."""
CPU_COPY_BYTES, GPU_COPY_BYTES = 2**28, 2**31
"""Far larger than any cache."""
REPEATS = 5


def measure_peak(device: str = "cpu") -> tuple[Peak, dict[str, Any]]:
    """The peak of `device` ("cpu" or "cuda"), and how it was found."""
    found = _cuda_products() if device == "cuda" else _cpu_products()
    best = max(found, key=lambda name: found[name])
    bandwidth = _bandwidth(device)
    peak = Peak(found[best], bandwidth)
    return peak, {
        "device": device,
        "gflop_per_s": round(peak.flops_per_s / 1e9, 2),
        "gbyte_per_s": round(peak.bytes_per_s / 1e9, 2),
        "best": best,
        "products_gflop_per_s": {name: round(rate / 1e9, 2) for name, rate in found.items()},
        "threads": THREADS if device == "cpu" else None,
    }


def best_s(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Seconds of the fastest of several runs, after one that does not count: what the device can do, not what it usually does."""
    run()
    return min(seconds_of(run) for _ in range(repeats))


def _cpu_products() -> dict[str, float]:
    torch.set_num_threads(THREADS)
    found = {}
    for side in CPU_SIDES:
        left, right = torch.randn(side, side), torch.randn(side, side)
        found[f"torch fp32 {side}"] = 2 * side**3 / best_s(lambda left=left, right=right: left @ right)  # type: ignore[misc]
        session, feeds = _product_session(side), {"left": left.numpy()}
        found[f"onnxruntime fp32 {side}"] = 2 * side**3 / best_s(lambda s=session, f=feeds: s.run(None, f))  # type: ignore[misc]
    return found


def _product_session(side: int) -> Any:
    """A session that multiplies `left` with a stored matrix, as the layers of networks do."""
    weight = np.random.Generator(np.random.PCG64(0)).standard_normal((side, side)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["left", "right"], ["out"])],
        "product",
        [helper.make_tensor_value_info("left", TensorProto.FLOAT, [side, side])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [side, side])],
        [onnx.numpy_helper.from_array(weight, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _cuda_products() -> dict[str, float]:
    found = {}
    for side in GPU_SIDES:
        left, right = (torch.randn(side, side, device="cuda", dtype=torch.float16) for _ in range(2))

        def run(left: torch.Tensor = left, right: torch.Tensor = right) -> None:
            left @ right
            torch.cuda.synchronize()

        found[f"torch fp16 {side}"] = 2 * side**3 / best_s(run)
    return found


def _bandwidth(device: str) -> float:
    """Bytes per second of a copy, reading and writing counted."""
    size = GPU_COPY_BYTES if device == "cuda" else CPU_COPY_BYTES
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def run() -> None:
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * size / best_s(run)
