"""A picture's denoiser and decoder on a card that has no more memory than a placement says, whatever the card has.

The rest of the card is occupied by the process that asks (`hold`), so the limit is real: what needs more fails. The one that draws
is started as `python -m benchmarks.gpu.small_card JSON`: components of the placement that stand on the card, loaded together as the
server has them, a few guided steps row by row, a decode in tiles.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.onnx.example_inputs import example_inputs
from faceclip_serving.contract.placements import placement_of
from faceclip_serving.contract.signatures import DENOISER, VAE_DECODER, components
from faceclip_serving.contract.variants import VARIANTS
from faceclip_serving.sampling.tiling import tiled

from ..measure import gpu
from ..measure.own_process import run_module
from . import gpu_process

SPARE_BYTES = 64_000_000
"""Left free beyond the limit: CUDA rounds what it hands out."""


@dataclass(frozen=True)
class Job:
    variant: str
    placement: str
    way: str
    """Of `gpu_process.WAYS`."""
    folder: str
    """Root of <component>/."""
    height: int
    width: int
    steps: int
    device: str = "cuda"


@contextmanager
def hold(limit_bytes: int) -> Iterator[int]:
    """Occupies the card but for `limit_bytes`; gives how many bytes were taken, 0 where the card has no more."""
    free, _ = torch.cuda.mem_get_info()
    taken = max(0, free - limit_bytes - SPARE_BYTES)
    held = torch.empty(taken, dtype=torch.uint8, device="cuda")
    try:
        yield taken
    finally:
        del held
        torch.cuda.empty_cache()


def measure(job: Job, timeout_s: float | None = None) -> dict[str, Any]:
    """What `run_here` found, or `error`."""
    return run_module(__name__, asdict(job), timeout_s)


def run_here(job: Job) -> dict[str, Any]:
    variant = VARIANTS[job.variant]
    placement = placement_of(variant, job.placement)
    scale = variant.latent_scale
    grid = {"latent_height": job.height // scale, "latent_width": job.width // scale}
    step_inputs = example_inputs(variant, components(variant)[DENOISER], {"rows": 1, **grid})
    with ExitStack() as stack:
        on_gpu = stack.enter_context(gpu.Peak())
        denoise = _open(job, DENOISER, {"rows": 1, **grid}, stack)
        tile = placement.vae_tile
        cells = {axis: min(size, tile) if tile else size for axis, size in grid.items()}
        decode = _open(job, VAE_DECODER, {"images": 1, **cells}, stack)
        if tile:
            decode = tiled(decode, tile, scale)
        steps_s = [_seconds(lambda: [denoise(step_inputs) for _ in range(2)]) for _ in range(job.steps)]
        started = time.perf_counter()
        image = decode({"latents": step_inputs["latents"]})["image"]
        decode_s = time.perf_counter() - started
    return {
        "step_s": [round(each, 4) for each in steps_s],
        "decode_s": round(decode_s, 4),
        "image": list(image.shape),
        "finite": bool(np.isfinite(image).all()),
        "gpu_peak_bytes": on_gpu.bytes,
        "gpu_card_bytes": on_gpu.card_bytes,
    }


def _open(job: Job, component: str, sizes: Mapping[str, int], stack: ExitStack) -> gpu_process.Run:
    variant = VARIANTS[job.variant]
    folder = str(Path(job.folder) / component)
    single = gpu_process.Job(job.variant, component, job.way, folder, "", (sizes,), 1, job.device)
    return gpu_process.opened(single, variant, components(variant)[component], stack)


def _seconds(run: Any) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    print(json.dumps(run_here(Job(**json.loads(sys.argv[1])))))
