"""Stage `few_steps`: what is added to the denoiser, as a LoRA, so that it draws in 4 steps what else takes 20.

Latent consistency (arXiv 2310.04378): from any point of the path from noise to a picture the student guesses the picture, and has to guess
the same as its own average does from the next point, where one guided step of DDIM by the teacher leads. The scalings at the borders
are those of diffusers' `LCMScheduler`. The student is the teacher and a matrix of low rank beside each of its own
(arXiv 2106.09685, 2311.05556). Guidance is learnt along: requests of the student have a `guidance_scale` of 1.

What the teacher loses, the student would lose again, and a little more. So the critic also compares its guesses with the pictures
themselves, as a reward beside the distillation does (arXiv 2403.11027): for the person at every time, since the face is given; for
what is named the more the less noise there was.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.func import functional_call

from faceclip_serving.contract.schedules import make_scheduler
from faceclip_serving.contract.variants.sdxl import NANO

from .. import device
from ..networks.conditioning import Conditioner
from .diffusion import LATENT_SIDE, NAMED_WEIGHT, Drops, Lesson, draw, misnamed, person_weight, size_ids
from .loop import Losses, Stage

REQUEST: Mapping[str, Any] = {"scheduler": "LCMScheduler", "num_inference_steps": 4, "guidance_scale": 1.0}
"""Parameters of a request to the student."""
DROPS = Drops(face=0.08, text=0.04, both=0.0)
"""Without guidance nobody asks for a picture of nothing."""

RANK = 32
_DDIM_STEPS = 50
_TARGET = 0.98
"""Decay of the average that tells the student what to guess, and of the result."""
_LEARNING_RATE = 5e-4
_CRITIC_WEIGHT = 0.5
_PERSON_WEIGHT = 1.0
_HUBER = 1e-2
_TIME_SCALE, _SPREAD = 10.0, 0.5
"""`timestep_scaling` and `sigma_data` of diffusers' `LCMScheduler`."""


class LowRank(nn.Module):
    """Added to matrices and convolutions of a denoiser; starts as nothing."""

    def __init__(self, unet: UNet2DConditionModel, rank: int = RANK) -> None:
        super().__init__()
        sides = {
            name.removesuffix(".weight"): (value.shape[0], value[0].numel())
            for name, value in unet.named_parameters()
            if name.endswith(".weight") and value.ndim in (2, 4)
        }
        ranks = {layer: min(rank, min(side) // 2) for layer, side in sides.items() if min(side) > rank // 2}
        self.layers = tuple(ranks)
        self.shapes = {layer: unet.get_parameter(f"{layer}.weight").shape for layer in ranks}
        self.down = nn.ParameterList(torch.randn(r, sides[layer][1]) / sides[layer][1] ** 0.5 for layer, r in ranks.items())
        self.up = nn.ParameterList(torch.zeros(sides[layer][0], r) for layer, r in ranks.items())

    def weights(self, unet: UNet2DConditionModel) -> dict[str, Tensor]:
        """The weights of `unet` with what is added, by their names; gradients reach the factors alone."""
        added = zip(self.layers, self.down, self.up, strict=True)
        own = {layer: unet.get_parameter(f"{layer}.weight").detach() for layer in self.layers}
        return {f"{layer}.weight": own[layer] + (up @ down).view_as(own[layer]) for layer, down, up in added}

    def fuse(self, unet: UNet2DConditionModel) -> None:
        """Adds it to the weights of `unet`."""
        with torch.no_grad():
            for name, value in self.weights(unet).items():
                unet.get_parameter(name).copy_(value)

    def factors(self) -> dict[str, Tensor]:
        """As diffusers and peft name and shape a LoRA of a UNet; alpha is the rank."""
        named = {}
        for layer, down, up in zip(self.layers, self.down, self.up, strict=True):
            inner = self.shapes[layer][1:]
            named[f"unet.{layer}.lora_A.weight"] = down.detach().view(-1, *inner)
            named[f"unet.{layer}.lora_B.weight"] = up.detach().view(*up.shape, *(1 for _ in inner[1:]))
        return named

    def load_factors(self, named: Mapping[str, Tensor]) -> None:
        """Takes what `factors` gave. Raises `KeyError` and `RuntimeError` where it is of another network."""
        with torch.no_grad():
            for layer, down, up in zip(self.layers, self.down, self.up, strict=True):
                down.copy_(named[f"unet.{layer}.lora_A.weight"].reshape(down.shape))
                up.copy_(named[f"unet.{layer}.lora_B.weight"].reshape(up.shape))


def few_steps_stage(
    unet: UNet2DConditionModel, conditioner: Conditioner, lesson: Lesson, guidance: float, steps: int, seed: int
) -> Stage:
    """Distils `unet`, guided by `guidance`; it and the conditioner stay as they are. `lesson`: with a critic, guesses look alike to it
    as well, and show the picture's person and what is named."""
    unet.eval().requires_grad_(False)
    conditioner.eval().requires_grad_(False)
    torch.manual_seed(seed)
    added = LowRank(unet)
    target = copy.deepcopy(added).requires_grad_(False)
    batch, critic = lesson.batch, lesson.critic
    weight = person_weight(LATENT_SIDE)
    alphas = make_scheduler("DDIMScheduler", NANO.scheduler_config).alphas_cumprod.to(torch.get_default_device())
    stride = len(alphas) // _DDIM_STEPS

    def velocity(weights: Mapping[str, Tensor], noisy: Tensor, time: Tensor, conditioning: tuple[Tensor, Tensor]) -> Tensor:
        embeddings, pooled = conditioning
        more = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": size_ids(len(noisy))}, "return_dict": False}
        with device.autocast(), device.attention():
            predicted: Tensor = functional_call(unet, dict(weights), (noisy, time, embeddings), more)[0]
        return predicted.float()

    def apart(noisy: Tensor, time: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """The clean latents and the noise that a velocity means."""
        share = alphas[time][:, None, None, None]
        return share.sqrt() * noisy - (1 - share).sqrt() * predicted, share.sqrt() * predicted + (1 - share).sqrt() * noisy

    def guess(student: LowRank, noisy: Tensor, time: Tensor, conditioning: tuple[Tensor, Tensor]) -> Tensor:
        clean, _ = apart(noisy, time, velocity(student.weights(unet), noisy, time, conditioning))
        scaled = (_TIME_SCALE * time.float())[:, None, None, None]
        skip = _SPREAD**2 / (scaled**2 + _SPREAD**2)
        return skip * noisy + scaled / (scaled**2 + _SPREAD**2).sqrt() * clean

    def losses(step: int) -> Losses:
        torch._foreach_lerp_(list(target.parameters()), [each.detach() for each in added.parameters()], 1 - _TARGET)
        drawn = draw(lesson, np.random.default_rng([seed, step]))
        with torch.no_grad():
            which = ((torch.arange(batch) + torch.rand(batch)) / batch * _DDIM_STEPS).long().clamp(max=_DDIM_STEPS - 1)
            time = stride * (which + 1) - 1
            nearer = (time - stride).clamp(min=0)
            share, then = alphas[time][:, None, None, None], alphas[nearer][:, None, None, None]
            noisy = share.sqrt() * drawn.latents + (1 - share).sqrt() * torch.randn_like(drawn.latents)
            with device.autocast(), device.attention():
                shown = conditioner(drawn.prompts, lesson.faces, drawn.index, drawn.prefixed)
                nothing = conditioner([""] * batch, lesson.faces, [-1] * batch, [False] * batch)
            without, with_it = velocity({}, noisy, time, nothing), velocity({}, noisy, time, shown)
            clean, noise = apart(noisy, time, without + guidance * (with_it - without))
            wanted = guess(target, then.sqrt() * clean + (1 - then).sqrt() * noise, nearer, shown)
        made = guess(added, noisy, time, shown)
        terms = {"consistency": ((((made - wanted).square() + _HUBER**2).sqrt() - _HUBER) * weight).mean()}
        if critic is not None:
            with device.autocast():
                alike, shown = critic.difference(made, wanted)
                stranger = critic.strangeness(made, drawn.latents)
                read = {} if lesson.named is None else critic.attributes(shown)
            terms["critic"] = _CRITIC_WEIGHT * alike.mean()
            faces = torch.tensor([face >= 0 for face in drawn.index])
            terms["person"] = _PERSON_WEIGHT * (stranger * faces).mean()
            if lesson.named is not None:
                terms["named"] = NAMED_WEIGHT * (share.flatten() * misnamed(read, lesson.named, drawn.rows)).mean()
        return terms

    modules = nn.ModuleDict({"added": added, "target": target})
    return Stage("few_steps", modules, losses, steps, _LEARNING_RATE, warm_up=200, cool_down=0.35, average=_TARGET, seed=seed)
