"""The ways to one picture that are compared: a request to the server, and what stands beside it in this process.

Each peer is a function that draws the picture of one `Work`. Knows how each is made ready; not how they are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.names import PREPARE
from faceclip_serving.contract.placements import ORT_CUDA, Execution, Placement
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.variants.variant import Variant
from faceclip_serving.models.tensorrt_package import use

from ..measure.example import PROMPT

if TYPE_CHECKING:
    from faceclip import FaceCLIPPipeline

    from ..measure.inprocess import Pipeline

SERVED, ONNXRUNTIME, EAGER, COMPILED, TENSORRT = "served", "onnxruntime", "diffusers_eager", "torch_compile", "tensorrt"
PEERS = (ONNXRUNTIME, EAGER, COMPILED, TENSORRT)

Draw = Callable[[], Any]
"""-> a PNG file, or RGB uint8 [height, width, 3]."""


@dataclass(frozen=True)
class Work:
    """One picture; nothing here differs between peers."""

    height: int
    width: int
    steps: int
    guidance_scale: float
    scheduler: str
    seed: int = 1

    @property
    def settings(self) -> dict[str, Any]:
        """As parameters of the request."""
        found = asdict(self)
        return {"num_inference_steps": found.pop("steps"), **found}


def default_work(variant: Variant) -> Work:
    usual = variant.defaults
    return Work(usual.height, usual.width, usual.num_inference_steps, usual.guidance_scale, usual.scheduler)


def device_of(placement: Placement) -> str:
    """What a placement computes on: "cpu", or "cuda" where any component does."""
    on_cpu = all(execution.runtime.instance_kind == "KIND_CPU" for execution in placement.components.values())
    return "cpu" if on_cpu else "cuda"


def on_onnxruntime(placement: Placement) -> Placement:
    """The same placement with ONNX Runtime on CUDA in place of engines, its pictures decoded whole."""
    components = {
        name: execution if execution.runtime.providers else Execution(ORT_CUDA, "fp16")
        for name, execution in placement.components.items()
    }
    changed = components != dict(placement.components)
    return replace(placement, name=f"{placement.name}-ort", components=components, vae_tile=0) if changed else placement


def absent(placement: Placement, wanted: Sequence[str], skipped: Sequence[str]) -> dict[str, str]:
    """Peers that do not take part -> why."""
    reasons = dict.fromkeys(skipped, "--skip")
    if TENSORRT in wanted:
        runtimes = {execution.runtime for execution in placement.components.values() if execution.runtime.package}
        if not runtimes:
            reasons[TENSORRT] = f"placement '{placement.name}' has no engines"
        else:
            try:
                for runtime in runtimes:
                    use(runtime)
            except UserError as error:
                reasons[TENSORRT] = str(error)
    return reasons


def served_peer(pipe: FaceCLIPPipeline, work: Work) -> Draw:
    """A request to the server; a PNG file comes back."""
    return lambda: bytes(pipe(PROMPT, output_type="bytes", **work.settings).images[0])


def inprocess_peer(pipeline: Pipeline, work: Work) -> Draw:
    """The same request to graphs (or engines) and functions in this process."""
    arrays = request_tensors(prompt=PROMPT, **work.settings)
    return lambda: bytes(pipeline(arrays)["images"][0])


def diffusers_peer(
    variant: Variant, work: Work, repository: Path, checkpoint: Path | None, device: str, compiled: bool
) -> Draw:
    """diffusers' own pipeline from the torch encoder's outputs; `compiled`: denoiser and decoder by torch.compile."""
    from ..measure.oracle import load_oracle, reference_rows  # torch and diffusers

    oracle = load_oracle(variant, checkpoint, device)
    encoded = oracle.encode(*reference_rows(variant, repository / PREPARE / "1", None, PROMPT))
    if compiled:
        for network in oracle.networks.values():
            network.compile()
    options = asdict(work)
    return lambda: oracle.picture(*encoded, **options)


def make_peers(
    variant: Variant, placement: Placement, work: Work, repository: Path, checkpoint: Path | None, wanted: Sequence[str]
) -> Mapping[str, Draw]:
    """The wanted peers of a server over `repository`, each ready for its first picture."""
    from export.repository.from_nothing import build_repository

    from ..measure import inprocess

    peers: dict[str, Draw] = {}
    if ONNXRUNTIME in wanted:
        plain = on_onnxruntime(placement)
        folder = repository if plain is placement else build_repository(variant, plain, checkpoint)
        peers[ONNXRUNTIME] = inprocess_peer(inprocess.load(variant, plain, folder), work)
    if TENSORRT in wanted:
        peers[TENSORRT] = inprocess_peer(inprocess.load(variant, placement, repository), work)
    for name in (EAGER, COMPILED):
        if name in wanted:
            peers[name] = diffusers_peer(variant, work, repository, checkpoint, device_of(placement), name == COMPILED)
    return peers
