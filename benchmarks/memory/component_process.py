"""One component in a process of its own, so that its memory is nobody else's: loaded, run, weighed.

The process imports no torch, since that alone is half a gigabyte. It runs graphs by the class that serves them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from export.onnx.example_inputs import example_inputs
from faceclip_serving.contract.components import components
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import RUNTIMES
from faceclip_serving.contract.variants.table import VARIANTS

from ..measure import gpu
from ..measure.host_memory import forget_peak, memory_bytes
from ..measure.own_process import run_module


@dataclass(frozen=True)
class ComponentRun:
    """What to weigh: `graph` is a `model.onnx`; `sizes` gives every named axis of the component's inputs."""

    variant: str
    component: str
    graph: str
    sizes: Mapping[str, int]
    runtime: str = "ort-cpu"
    """Name of a runtime of `placements`; one that runs ONNX graphs."""
    repeats: int = 1
    threads: int = 0
    """Of ONNX Runtime; 0: as many as there are cores."""
    session: Mapping[str, str] = field(default_factory=dict)
    """Session configuration entries on top of what serving sets."""


class ComponentProcessError(UserError):
    """The process of a component ended without a result."""


def weighed(job: ComponentRun) -> dict[str, Any]:
    """Seconds and memory of `job`, see `run_here`. Raises `ComponentProcessError`."""
    found = run_module(__name__, job)
    if "error" in found:
        raise ComponentProcessError(f"{job.component} of {job.graph}: {found['error']}")
    return found


def run_here(job: ComponentRun) -> dict[str, Any]:
    """Loads and runs in this process. Bytes are resident memory: `before` anything is loaded, `load_peak`, `idle` after
    loading, `run_peak`; `runs_s` has the seconds of each run, the first of which allocates."""
    from faceclip_serving.models.onnx_component import OnnxComponent

    variant = VARIANTS[job.variant]
    signature = components(variant)[job.component]
    inputs = example_inputs(variant, signature, job.sizes)
    before = memory_bytes()
    forget_peak()
    started = time.perf_counter()
    component = OnnxComponent(Path(job.graph), signature, RUNTIMES[job.runtime].providers, {}, job.threads, job.session)
    load_s = time.perf_counter() - started
    loaded = memory_bytes()
    gpu_idle = gpu.process_bytes()
    forget_peak()
    runs_s = []
    with gpu.Peak() as gpu_peak:
        for _ in range(job.repeats):
            started = time.perf_counter()
            outputs = component.run(inputs)
            runs_s.append(time.perf_counter() - started)
    after = memory_bytes()
    on_gpu = {} if gpu_idle is None else {"gpu_idle": gpu_idle, "gpu_peak": gpu_peak.bytes}
    return {
        "load_s": load_s,
        "runs_s": runs_s,
        "bytes": {
            "before": before["now"],
            "load_peak": loaded["peak"],
            "idle": loaded["now"],
            "idle_own": loaded["own"],
            "idle_files": loaded["files"],
            "run_peak": after["peak"],
            **on_gpu,
        },
        "outputs": {
            name: {
                "shape": list(array.shape),
                "finite": bool(np.isfinite(array).all()),
                "largest": float(np.abs(array).max()),
            }
            for name, array in outputs.items()
        },
    }


if __name__ == "__main__":
    print(json.dumps(run_here(ComponentRun(**json.loads(sys.argv[1])))))
