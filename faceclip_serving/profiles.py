"""Where each component runs, as data. A profile maps components to runtimes; it never changes a signature.

A `Runtime` is a way to run an ONNX graph or what was built from it. `cpu` and `gpu-ort` run ONNX Runtime inside Triton's Python
backend; `tensorrt` hands a plan to Triton's own TensorRT backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .signatures import COMPONENTS


@dataclass(frozen=True)
class Runtime:
    name: str
    backend: str
    """Triton backend of the model: `python` or `tensorrt`."""
    platform: str
    """Triton's `platform` field; empty where the backend alone decides."""
    artifact: str
    """File in the model's version folder."""
    instance_kind: str
    providers: tuple[str, ...] = ()
    """ONNX Runtime execution providers, for the Python backend."""


ORT_CPU = Runtime("ort-cpu", "python", "", "model.onnx", "KIND_CPU", ("CPUExecutionProvider",))
ORT_CUDA = Runtime("ort-cuda", "python", "", "model.onnx", "KIND_GPU", ("CUDAExecutionProvider", "CPUExecutionProvider"))
TENSORRT = Runtime("tensorrt", "tensorrt", "tensorrt_plan", "model.plan", "KIND_GPU")
RUNTIMES: Mapping[str, Runtime] = {runtime.name: runtime for runtime in (ORT_CPU, ORT_CUDA, TENSORRT)}


@dataclass(frozen=True)
class Placement:
    runtime: Runtime
    precision: str
    """Precision written into the graph: `fp32` or `fp16`; boundaries are FP32 either way."""


@dataclass(frozen=True)
class Profile:
    name: str
    placements: Mapping[str, Placement]
    denoiser_rows: int
    """Largest batch of one denoiser call. Datacenter cards gain from large ones, small cards hardly."""
    doc: str
    max_active: int = 8
    """Requests that share the denoiser's ticks."""
    encoding_cache_bytes: int = 256 * 2**20
    """Memory of each encoder for encodings it may need again; 0 switches that off. Stands in config.pbtxt, to be changed there."""
    max_waiting: int = 32
    """Requests that may wait for that; more are refused at once."""


def _everywhere(placement: Placement) -> Mapping[str, Placement]:
    return dict.fromkeys(COMPONENTS, placement)


PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("cpu", _everywhere(Placement(ORT_CPU, "fp32")), denoiser_rows=8, doc="ONNX Runtime on the CPU"),
        Profile("gpu-ort", _everywhere(Placement(ORT_CUDA, "fp16")), denoiser_rows=8, doc="ONNX Runtime on CUDA, IO binding"),
        Profile("tensorrt", _everywhere(Placement(TENSORRT, "fp16")), denoiser_rows=8, doc="Triton's TensorRT backend"),
    )
}
