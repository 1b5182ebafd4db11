"""The reference: diffusers' own StableDiffusionXLPipeline, fed with the torch encoder's embeddings, same weights and seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import nn

from export.checkpoint import load_part
from export.faceclip.encoder import FaceCLIPEncoder
from export.weights import fill_seeded
from faceclip_serving.schedules import make_scheduler
from faceclip_serving.tensors import Array
from faceclip_serving.variants import Variant


Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Oracle:
    """Torch networks of a variant, in FP32, none of them prepared for export."""

    variant: Variant
    encoder: FaceCLIPEncoder
    unet: UNet2DConditionModel
    vae: AutoencoderKL

    @torch.no_grad()
    def encode(self, face_image: Array, face_exist: Array, input_ids: Array) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings and pooled rows of prompts with (or without) their faces."""
        encoded: tuple[torch.Tensor, torch.Tensor] = self.encoder(*map(torch.from_numpy, (face_image, face_exist, input_ids)))
        return encoded

    @torch.no_grad()
    def picture(
        self,
        embeddings: torch.Tensor,
        pooled: torch.Tensor,
        *,
        scheduler: str,
        seed: int,
        steps: int,
        guidance_scale: float,
        height: int,
        width: int,
    ) -> Array:
        """One picture, uint8 [height, width, 3]. Row 0 of the conditioning is the negative prompt, row 1 the positive."""
        pipeline = StableDiffusionXLPipeline(
            vae=self.vae,
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=self.unet,
            scheduler=make_scheduler(scheduler, self.variant.scheduler_config),
            add_watermarker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        image = pipeline(
            prompt_embeds=embeddings[1:2],
            pooled_prompt_embeds=pooled[1:2],
            negative_prompt_embeds=embeddings[:1],
            negative_pooled_prompt_embeds=pooled[:1],
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            height=height,
            width=width,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
        ).images[0]
        return np.asarray((image * 255).round(), np.uint8)


def load_oracle(variant: Variant, checkpoint: Path | None = None) -> Oracle:
    """The networks of an SDXL-family variant, from a checkpoint folder or with seeded weights."""

    def filled(module: Module, part: str) -> Module:
        if checkpoint is None:
            fill_seeded(module)
        else:
            load_part(module, checkpoint, part)
        return module.eval().requires_grad_(False)

    architecture = variant.architecture
    return Oracle(
        variant,
        filled(FaceCLIPEncoder(architecture, variant.tokens[0]), "face_clip_encoder"),
        filled(UNet2DConditionModel(**architecture.unet), "unet"),
        filled(AutoencoderKL(**architecture.vae), "vae"),
    )


def psnr_db(a: Array, b: Array) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures; infinite if equal."""
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
