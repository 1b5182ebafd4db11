"""What may be chosen when an engine is built, as data: each option, and what excludes what.

Precision is not among them. TensorRT 11 has no precision flags, and a strongly typed network of TensorRT 10 obeys the graph as
well: what the ONNX file says is what runs. Knows names of TensorRT's flags; does not import it.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from faceclip_serving.contract.placements import Runtime

from .errors import EngineError

GIB = 1 << 30

HARDWARE = ("none", "same-compute-capability", "ampere-plus")
"""Which other GPUs may load a plan of TensorRT proper. Wider is slower."""


@dataclass(frozen=True)
class Options:
    weight_streaming: bool = False
    """Weights may stay in host memory. Triton's TensorRT backend sets no budget for it: for in-process use."""
    refit: bool = False
    """Weights can be exchanged later, e.g. for a fused LoRA, in seconds instead of a build."""
    stripped: bool = False
    """The plan holds no weights, and takes them from the ONNX file before use."""
    hardware: str = "none"
    """One of `HARDWARE`."""
    optimization_level: int = 3
    """0 to 5: how long the builder searches; 3 is TensorRT's default."""
    workspace_gb: float | None = None
    """Scratch memory that a kernel may ask for, GiB; None: what the GPU has."""

    def __post_init__(self) -> None:
        if self.hardware not in HARDWARE:
            raise EngineError(f"hardware compatibility: expected one of {', '.join(HARDWARE)}, got '{self.hardware}'")
        if not 0 <= self.optimization_level <= 5:
            raise EngineError(f"optimization level: expected 0 to 5, got {self.optimization_level}")
        if self.workspace_gb is not None and not 0 < self.workspace_gb < math.inf:
            raise EngineError(f"workspace: expected a finite number of GiB above 0, got {self.workspace_gb}")

    @property
    def for_triton(self) -> bool:
        """Whether Triton's TensorRT backend can serve the plan: it neither refits nor sets a streaming budget."""
        return not (self.stripped or self.weight_streaming)

    @property
    def hardware_level(self) -> str:
        """Name of tensorrt.HardwareCompatibilityLevel."""
        return self.hardware.upper().replace("-", "_")

    @property
    def workspace_bytes(self) -> int | None:
        return None if self.workspace_gb is None else int(self.workspace_gb * GIB)

    def require_for(self, runtime: Runtime) -> None:
        """Raises `EngineError` for what the runtime's compiler does not do."""
        if runtime.ahead_of_time and (self.refit or self.stripped or self.hardware != "none"):
            raise EngineError(
                f"runtime '{runtime.name}': builds for compute capabilities (--sm), on any machine; --refit, --stripped and"
                " --hardware-compatibility need the card, and `--runtime tensorrt`"
            )


NO_OPTIONS = Options()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options on a command line."""
    group = parser.add_argument_group("what the plan can do")
    group.add_argument("--refit", action="store_true", help="weights can be exchanged later (--refit-from)")
    group.add_argument("--stripped", action="store_true", help="no weights in the plan (not for Triton)")
    group.add_argument("--weight-streaming", action="store_true", help="weights may stay in host memory (not for Triton)")
    group.add_argument(
        "--hardware-compatibility", choices=HARDWARE, default="none", help="which other GPUs may load it; costs speed"
    )
    group = parser.add_argument_group("how it is built")
    group.add_argument("--optimization-level", type=int, default=3, metavar="0-5", help="search effort (default: %(default)s)")
    group.add_argument("--workspace", type=float, metavar="GIB", help="scratch memory for kernels (default: what the GPU has)")


def from_arguments(args: argparse.Namespace) -> Options:
    return Options(
        weight_streaming=args.weight_streaming,
        refit=args.refit,
        stripped=args.stripped,
        hardware=args.hardware_compatibility,
        optimization_level=args.optimization_level,
        workspace_gb=args.workspace,
    )
