"""One build by TensorRT for RTX, in a process of its own: after a failed build the next one in the same process may fail as well.

The compiler needs no GPU. It says what the engine will need: activations, scratch within them, weights. The plan itself is weighed and
forgotten.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGE = "tensorrt_rtx"

_STATED: Mapping[str, re.Pattern[str]] = {
    "activation_bytes": re.compile(r"Total Activation Memory: (\d+) bytes"),
    "scratch_bytes": re.compile(r"Max Scratch Memory: (\d+) bytes"),
    "weight_bytes": re.compile(r"Total Weights Memory: (\d+) bytes"),
}
"""What the compiler's log says, in its own words. A plan for several cards states each; the largest counts."""


@dataclass(frozen=True)
class Compile:
    """What to build."""

    graph: str
    """A `model.onnx`."""
    shapes: Mapping[str, Sequence[Sequence[int]]]
    """Input -> its smallest, usual and largest shape."""
    capabilities: Sequence[int]
    """Compute capabilities, as 75 or 120."""
    log: str = ""
    """File for all that the compiler says, the verbose part included; empty: none."""


def missing() -> str:
    """Why nothing can be compiled here, or nothing."""
    if find_spec(PACKAGE) is not None:
        return ""
    return f"{PACKAGE} is not installed: `pip install tensorrt-rtx-cu13` (Linux on x86-64, and Windows)"


def compiled(job: Compile) -> dict[str, Any]:
    """Builds `job` in this process. Seconds, bytes and versions, or `refused`: the compiler's reason."""
    import tensorrt_rtx as trt

    told: list[str] = []
    errors: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if job.log or severity != trt.ILogger.VERBOSE:
                told.append(msg)
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors.append(msg)

    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    started = time.monotonic()
    plan = None
    if parser.parse_from_file(job.graph):
        config = builder.create_builder_config()
        profile = builder.create_optimization_profile()
        for name, shapes in job.shapes.items():
            profile.set_shape(name, *(tuple(shape) for shape in shapes))
        config.add_optimization_profile(profile)
        config.num_compute_capabilities = len(job.capabilities)
        for i, capability in enumerate(job.capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), i)
        plan = builder.build_serialized_network(network, config)
    if job.log:
        Path(job.log).write_text("\n".join(told) + "\n")
    measured = {
        "seconds": round(time.monotonic() - started, 1),
        "host_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "compiler": f"{PACKAGE} {trt.__version__}",
    }
    if plan is None:
        return {"refused": errors[0] if errors else "no reason given", **measured}
    return {"plan_bytes": plan.nbytes, **stated(told), **measured}


def stated(log: Sequence[str]) -> dict[str, int | None]:
    """What the compiler said of memory; None where it did not."""
    text = "\n".join(log)
    return {name: max(map(int, words.findall(text)), default=None) for name, words in _STATED.items()}


if __name__ == "__main__":
    print(json.dumps(compiled(Compile(**json.loads(sys.argv[1])))))
