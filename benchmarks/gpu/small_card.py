"""A picture's denoiser and decoder on a card that has no more memory than a placement says, whatever the card has.

The process that asks occupies the rest of the card (`hold`), so the limit is real: what needs more fails. Another one, `python -m
benchmarks.gpu.small_card JSON`, draws: denoiser and decoder loaded together as the server has them, a few guided steps row by row,
a decode in tiles.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.onnx.example_inputs import example_inputs
from faceclip_serving.contract.placements import placement_of
from faceclip_serving.contract.signatures import DENOISER, VAE_DECODER, components
from faceclip_serving.contract.variants import VARIANTS
from faceclip_serving.sampling.tiling import tiled

from ..measure import gpu
from ..measure.timing import seconds_of
from .ways import Run, WayTrial, opened

SPARE_BYTES = 64_000_000
"""Left free beyond the limit: CUDA rounds what it hands out."""


@dataclass(frozen=True)
class SmallCardTrial:
    variant: str
    placement: str
    way: str
    """Of `ways.WAYS`."""
    folder: str
    """Root of <component>/."""
    height: int
    width: int
    steps: int
    device: str = "cuda"


@contextmanager
def hold(limit_bytes: int) -> Iterator[int]:
    """Occupies the card but for `limit_bytes`; gives how many bytes were taken, 0 where the card has no more."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    taken = max(0, free - limit_bytes - SPARE_BYTES)
    held = torch.empty(taken, dtype=torch.uint8, device="cuda")
    try:
        yield taken
    finally:
        del held
        torch.cuda.empty_cache()


def run_here(trial: SmallCardTrial) -> dict[str, Any]:
    variant = VARIANTS[trial.variant]
    placement = placement_of(variant, trial.placement)
    scale = variant.latent_scale
    grid = {"latent_height": trial.height // scale, "latent_width": trial.width // scale}
    step_inputs = example_inputs(variant, components(variant)[DENOISER], {"rows": 1, **grid})
    with ExitStack() as stack:
        on_gpu = stack.enter_context(gpu.Peak())
        denoise = _open(trial, DENOISER, {"rows": 1, **grid}, stack)
        tile = placement.vae_tile
        cells = {axis: min(size, tile) if tile else size for axis, size in grid.items()}
        decode = _open(trial, VAE_DECODER, {"images": 1, **cells}, stack)
        if tile:
            decode = tiled(decode, tile, scale)
        steps_s = [seconds_of(lambda: [denoise(step_inputs) for _ in range(2)]) for _ in range(trial.steps)]
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


def _open(trial: SmallCardTrial, component: str, sizes: Mapping[str, int], stack: ExitStack) -> Run:
    variant = VARIANTS[trial.variant]
    folder = str(Path(trial.folder) / component)
    single = WayTrial(trial.variant, component, trial.way, folder, "", (sizes,), 1, trial.device)
    return opened(single, variant, components(variant)[component], stack)


if __name__ == "__main__":
    print(json.dumps(run_here(SmallCardTrial(**json.loads(sys.argv[1])))))
