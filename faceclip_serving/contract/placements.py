"""Where each component runs, as data. A placement maps components to runtimes; it never changes a signature.

A `Runtime` is a way to run an ONNX graph or what was built from it: ONNX Runtime or a plan of TensorRT for RTX inside the sampler's
process, or a model of Triton's own TensorRT or ONNX Runtime backend. `python -m export forecast` says what memory a placement needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from .errors import UserError
from .names import COMPONENTS, DEFAULT_DEPLOYMENT, ENCODERS, OCCASIONAL, SAMPLER, model_name
from .variants.architectures import FluxArchitecture, SDXLArchitecture
from .variants.variant import Variant

ONNX_FILE = "model.onnx"
FUSED_FILE = "model.fused.onnx"
"""The same with attention as one operator of ONNX Runtime, over the weights of `model.onnx`."""
ONNX_WEIGHTS_FILE = "model.onnx.data"
PLAN_FILE = "model.plan"
"""A TensorRT engine, serialised."""
CACHE_SUFFIX = ".cache"
"""Of the file beside a plan that keeps what it was finished to on a card."""


@dataclass(frozen=True)
class Runtime:
    name: str
    backend: str
    """`python`: the sampler's process runs it. `onnxruntime`, `tensorrt`: it is a model of that backend of Triton."""
    platform: str
    """Triton's `platform` field; empty where the backend alone decides."""
    artifact: str
    """File of the component, see `Placement.folder`."""
    instance_kind: str
    providers: tuple[str, ...] = ()
    """ONNX Runtime execution providers, where the sampler's process runs it."""
    package: str = ""
    """Python package that builds, loads and runs its plans; empty where it has none."""
    ahead_of_time: bool = False
    """Plans are compiled for a list of compute capabilities, on any machine, and finished on the card when they first run there; what
    that gives is kept beside the plan. Otherwise a plan is built on the card that runs it, and is finished."""
    slow_first_call: bool = False
    """ONNX Runtime in the sampler's process chooses kernels for shapes when they come for the first time, which takes seconds."""
    cuda_graphs: bool = False
    """Whole calls are captured as CUDA graphs, by shape, where the sampler's process runs plans."""


CUDA_PROVIDER = "CUDAExecutionProvider"
CUDA_CURE = ".venv/bin/pip uninstall -y onnxruntime onnxruntime-gpu && .venv/bin/pip install -r requirements-cuda.txt"
"""How an environment gets that provider. Two builds of ONNX Runtime share one module: whichever goes takes the other's files with it, so
both go first."""
ORT_CPU = Runtime("ort-cpu", "python", "", ONNX_FILE, "KIND_CPU", ("CPUExecutionProvider",))
ORT_CUDA = Runtime(
    "ort-cuda", "python", "", FUSED_FILE, "KIND_GPU", (CUDA_PROVIDER, "CPUExecutionProvider"), slow_first_call=True
)
TRITON_ORT = Runtime("triton-ort", "onnxruntime", "onnxruntime_onnx", ONNX_FILE, "KIND_GPU")
"""Triton's own ONNX Runtime backend, which its images bring and the wheel does not."""
TENSORRT = Runtime("tensorrt", "tensorrt", "tensorrt_plan", PLAN_FILE, "KIND_GPU", package="tensorrt")
"""TensorRT proper, for all cards, in Triton's own backend: NVIDIA's container brings both."""
TRT_RTX = Runtime("trt-rtx", "python", "", PLAN_FILE, "KIND_GPU", package="tensorrt_rtx", ahead_of_time=True, cuda_graphs=True)
"""TensorRT for RTX, for GeForce and RTX cards of series 20 to 50: a wheel, no container."""
RUNTIMES: Mapping[str, Runtime] = {each.name: each for each in (ORT_CPU, ORT_CUDA, TRITON_ORT, TENSORRT, TRT_RTX)}
PLAN_RUNTIMES = tuple(name for name, runtime in RUNTIMES.items() if runtime.package)
"""Names of those that run plans."""


@dataclass(frozen=True)
class Execution:
    runtime: Runtime
    precision: str
    """Precision written into the graph, by the name of its folder; boundaries are FP32 in all of them."""
    stands_for: Execution | None = None
    """What an emulated placement would run on its card."""
    weights_on_card_bytes: int | None = None
    """Of a plan's weights, how many may be on the card at once; the others are streamed from host memory in each call, which is slower.
    None: all. For runtimes whose plans the sampler's process runs."""


@dataclass(frozen=True)
class Placement:
    """A placement of all components on one kind of machine."""

    name: str
    components: Mapping[str, Execution]
    denoiser_rows: int
    """Largest batch of one denoiser call. Datacenter cards gain from large ones, small cards hardly."""
    doc: str
    gpu_bytes: int | None = None
    """Memory of the card that may be used, a display's share left out; what `export forecast` holds its prediction against."""
    largest_side: int | None = None
    """Pixels; larger pictures are refused. An engine reserves memory for the largest picture. None: as the variant allows."""
    max_active: int = 8
    """Requests that share the denoiser's ticks."""
    encoding_cache_bytes: int = 256 * 2**20
    """Memory for the encodings of each encoder that may be needed again."""
    max_waiting: int = 32
    """Requests that may wait for that; more are refused at once."""
    vae_tile: int = 0
    """Latent cells per side of the tiles that pictures are decoded in (tiling.py); 0: pictures are decoded whole."""
    gpu: int = 0
    """Which GPU, as nvidia-smi numbers them, runs what runs on one."""
    plans_on: str = ""
    """Name of the runtime that was chosen for the plans, in the place of the table's; see `on`."""

    @property
    def emulated(self) -> Mapping[str, str]:
        """Component -> what runs in the place of what, for people; empty where the placement is the real one."""
        return {
            name: f"{execution.precision} on {execution.runtime.name} for {real.precision} on {real.runtime.name}"
            for name, execution in self.components.items()
            if (real := execution.stands_for) is not None
        }

    @property
    def label(self) -> str:
        """The name, for folders and reports; it tells an emulated placement, and a chosen runtime, from the table's."""
        return "-".join(filter(None, (self.name, self.plans_on, "emulated" if self.emulated else "")))

    def on(self, runtime: str) -> Placement:
        """The same placement with the plans of another runtime, by its name. What runs without a plan stays.

        Weights are streamed by plans that the sampler's process runs; in Triton's own backend all of them are on the card.
        """
        chosen = RUNTIMES[runtime]
        components = {
            name: replace(
                execution,
                runtime=chosen,
                weights_on_card_bytes=execution.weights_on_card_bytes if chosen.backend == "python" else None,
            )
            if execution.runtime.package
            else execution
            for name, execution in self.components.items()
        }
        return self if components == self.components else replace(self, components=components, plans_on=runtime)

    def emulate(self, precisions: Mapping[str, str] | None = None) -> Placement:
        """The same placement on a machine without its card: ONNX Runtime's CPU provider runs what a GPU would.

        Rows, sizes, tiles, admission, precision and the bounds of every call stay. Speed and memory do not. `precisions`: component ->
        another precision, for files that cannot be made here.
        """
        other = precisions or {}
        components = {
            name: Execution(ORT_CPU, other.get(name, real.precision), stands_for=real)
            if real.runtime.instance_kind == "KIND_GPU"
            else real
            for name, real in self.components.items()
        }
        return replace(self, components=components)

    def is_hosted(self, component: str) -> bool:
        """Whether the sampler's process runs a component itself. Else it is a model of its own, for a backend of Triton."""
        return self.components[component].runtime.backend == "python"

    def folder(self, component: str, deployment: str = DEFAULT_DEPLOYMENT) -> PurePosixPath:
        """Where a component's artifact lies in an assembled repository."""
        model = model_name(SAMPLER if self.is_hosted(component) else component, deployment)
        return PurePosixPath(model, "1", component if self.is_hosted(component) else "")

    def providers(self, component: str) -> list[str | tuple[str, dict[str, str]]]:
        """ONNX Runtime's execution providers of a component, with their options."""
        names = self.components[component].runtime.providers
        return [(name, {"device_id": str(self.gpu)}) if name == CUDA_PROVIDER else name for name in names]

    def narrowed(self, variant: Variant) -> Variant:
        """The variant with the sizes that this placement leaves it, its default size among them."""
        usual, limits = variant.defaults, variant.limits
        high, wide = (min(side, self.largest_side or side) for side in limits.largest)
        defaults = replace(usual, height=min(usual.height, high), width=min(usual.width, wide))
        limits = replace(limits, height=(limits.height[0], high), width=(limits.width[0], wide))
        return replace(variant, defaults=defaults, limits=limits)


class PlacementError(UserError):
    """A variant has no placement of the name that was asked for."""


def _placed(runtime: Runtime, precision: str, **others: Execution) -> Mapping[str, Execution]:
    """Every component on one runtime, but those named."""
    return {name: others.get(name, Execution(runtime, precision)) for name in COMPONENTS}


_ON_CPU = Execution(ORT_CPU, "fp32")
_OCCASIONAL_ON_CPU = dict.fromkeys(OCCASIONAL, _ON_CPU)
_ENCODERS_ON_CPU = dict.fromkeys(ENCODERS, _ON_CPU)
_ALL_ENCODERS_ON_CPU = {**_ENCODERS_ON_CPU, **_OCCASIONAL_ON_CPU}
_GB = 10**9

CPU = Placement("cpu", _placed(ORT_CPU, "fp32"), denoiser_rows=8, doc="ONNX Runtime on the CPU")
GPU_ORT = Placement("gpu-ort", _placed(ORT_CUDA, "fp16"), 8, "ONNX Runtime on CUDA, IO binding", 79 * _GB)
GPU_TRITON_ORT = Placement("gpu-triton-ort", _placed(TRITON_ORT, "fp16"), 8, "Triton's own ONNX Runtime backend", 79 * _GB)

_RTX = _placed(TRT_RTX, "fp16")
_RTX_OCCASIONAL_ON_CPU = _placed(TRT_RTX, "fp16", **_OCCASIONAL_ON_CPU)
_RTX_ENCODERS_ON_CPU = _placed(TRT_RTX, "fp16", **_ALL_ENCODERS_ON_CPU)
_RTX_STREAMED = _placed(
    TRT_RTX, "fp16", denoiser=Execution(TRT_RTX, "fp16", weights_on_card_bytes=3_800_000_000), **_ALL_ENCODERS_ON_CPU
)
_RTX_INT8W = _placed(TRT_RTX, "fp16", denoiser=Execution(TRT_RTX, "int8w"), **_ALL_ENCODERS_ON_CPU)
_RTX_FP8_ENCODERS_ON_CPU = _placed(TRT_RTX, "fp16", denoiser=Execution(TRT_RTX, "fp8"), **_ALL_ENCODERS_ON_CPU)
_RTX_FP8_STREAMED = _placed(
    TRT_RTX, "fp16", denoiser=Execution(TRT_RTX, "fp8", weights_on_card_bytes=9_200_000_000), **_ALL_ENCODERS_ON_CPU
)
_RTX_FP8_LARGE = _placed(TRT_RTX, "fp16", denoiser=Execution(TRT_RTX, "fp8"), **_ENCODERS_ON_CPU)
_FP16 = _placed(TENSORRT, "fp16")

# fmt: off
_SDXL = (
    CPU,
    GPU_ORT,
    GPU_TRITON_ORT,
    Placement("6gb", _RTX_STREAMED, 2, "encoders on the CPU; a quarter of the denoiser's weights comes from host memory in each step",
              5_500_000_000, largest_side=1152, vae_tile=48),
    Placement("6gb-int8w", _RTX_INT8W, 2, "encoders on the CPU; the denoiser's weights in INT8, all of them on the card",
              5_500_000_000, largest_side=1152, vae_tile=64),
    Placement("8gb", _RTX_ENCODERS_ON_CPU, 2, "encoders on the CPU", 7_500_000_000, largest_side=1152, vae_tile=64),
    Placement("12gb", _RTX_OCCASIONAL_ON_CPU, 4, "everything on the card but the VAE's encoder, two requests a tick", 11_300_000_000,
              largest_side=1152, vae_tile=64),
    Placement("16gb", _RTX, 8, "everything on the card, four requests a tick", 15_300_000_000, largest_side=1152, vae_tile=96),
    Placement("24gb", _RTX, 8, "everything on the card, four requests a tick, larger pictures", 23_300_000_000, largest_side=1344,
              vae_tile=144),
    Placement("datacenter", _FP16, 16, "everything on a card of 80 GB, eight requests a tick", 79 * _GB, largest_side=1344),
)

_FLUX = (
    CPU,
    replace(GPU_ORT, denoiser_rows=2),
    replace(GPU_TRITON_ORT, denoiser_rows=2, vae_tile=128),
    Placement("12gb", _RTX_FP8_STREAMED, 1, "the transformer in FP8, encoders on the CPU; a quarter of the transformer's weights comes"
              " from host memory in each step", 11_300_000_000, largest_side=1152, vae_tile=48),
    Placement("16gb", _RTX_FP8_ENCODERS_ON_CPU, 1, "the transformer in FP8, encoders on the CPU", 15_300_000_000, largest_side=1152,
              vae_tile=64),
    Placement("24gb", _RTX_FP8_LARGE, 2, "the transformer in FP8, encoders of faces and text on the CPU, larger pictures",
              23_300_000_000, largest_side=1536, vae_tile=144),
    Placement("datacenter", _FP16, 4, "everything on a card of 80 GB, two requests a tick", 79 * _GB, largest_side=1152),
)
# fmt: on

_PLACEMENTS: Mapping[type, tuple[Placement, ...]] = {SDXLArchitecture: _SDXL, FluxArchitecture: _FLUX}
"""By family, since families differ in what fits where."""

PLACEMENT_NAMES = tuple(dict.fromkeys(placement.name for table in _PLACEMENTS.values() for placement in table))


def placements(variant: Variant) -> Mapping[str, Placement]:
    """The placements that serve a variant, by name."""
    return {placement.name: placement for placement in _PLACEMENTS[type(variant.architecture)]}


def placement_of(variant: Variant, name: str) -> Placement:
    """Raises `PlacementError` where the variant cannot be served so."""
    known = placements(variant)
    if name not in known:
        raise PlacementError(f"placement: '{variant.name}' has no '{name}', only {', '.join(known)}")
    return known[name]
