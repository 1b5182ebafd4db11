"""Drawing in torch, by the denoiser as training has it: for judges and sheets. What is served draws by `faceclip_serving.sampling`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from faceclip_serving.contract.schedules import make_scheduler
from faceclip_serving.contract.variants.sdxl import NANO
from faceclip_serving.sampling.guidance import combine

from ..networks.conditioning import Conditioner, Faces
from .diffusion import LATENT_SIDE, predict


@dataclass(frozen=True)
class Guidance:
    """`text` and `identity` scales; equal values are the standard form."""

    text: float = NANO.defaults.guidance_scale
    identity: float = NANO.defaults.guidance_scale
    blend: float = 1.0
    steps: int = 20
    scheduler: str = "DPMSolverMultistepScheduler"
    seed: int = 0


@torch.no_grad()
def generate(
    unet: UNet2DConditionModel,
    conditioner: Conditioner,
    prompts: Sequence[str],
    faces: Faces,
    references: Sequence[Sequence[int]],
    guidance: Guidance = Guidance(),
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """Scaled latents [n, channels, h, w]. `references`: rows of `faces` of each picture; several are averaged; none: no face.

    Picture i starts from the noise of seed + i, or of `seeds[i]`, whatever else is in the call, and goes on with it where a scheduler
    takes fresh noise.
    """
    n = len(prompts)
    none = [-1] * n
    some = [len(r) > 0 for r in references]
    uncond = conditioner([""] * n, faces, none, [False] * n)
    text = conditioner(prompts, faces, none, [False] * n)
    longest = max(1, max(len(r) for r in references))
    sums: list[Tensor] = []
    for k in range(longest):
        index = [r[k % len(r)] if r else -1 for r in references]
        made = conditioner(prompts, faces, index, some)
        sums = list(made) if not sums else [a + b for a, b in zip(sums, made, strict=True)]
    identity = [part / longest for part in sums]
    if guidance.blend < 1:
        plain = conditioner(prompts, faces, none, some)
        identity = [guidance.blend * a + (1 - guidance.blend) * b for a, b in zip(identity, plain, strict=True)]
    standard = guidance.text == guidance.identity
    chain = [uncond, identity] if standard else [uncond, text, identity]
    scales = [guidance.text] if standard else [guidance.text, guidance.identity]
    embeddings = torch.cat([part[0] for part in chain])
    pooled = torch.cat([part[1] for part in chain])
    channels = unet.config.in_channels
    starts = [guidance.seed + i for i in range(n)] if seeds is None else seeds
    with torch.device("cpu"):  # a seed's noise is the same on every device, and schedulers count with numpy
        scheduler = make_scheduler(guidance.scheduler, NANO.scheduler_config)
        scheduler.set_timesteps(guidance.steps)
        generators = [torch.Generator().manual_seed(s) for s in starts]
        noise = [torch.randn(1, channels, LATENT_SIDE, LATENT_SIDE, generator=generator) for generator in generators]
    fresh = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
    latents = torch.cat(noise).to(embeddings.device) * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        rows = scheduler.scale_model_input(latents, time).repeat(len(chain), 1, 1, 1)
        predictions = predict(unet, rows, time.to(rows.device).expand(len(rows)), embeddings, pooled).chunk(len(chain))
        latents = scheduler.step(combine(predictions, scales), time, latents, **fresh, return_dict=False)[0]
    final: Tensor = latents
    return final
