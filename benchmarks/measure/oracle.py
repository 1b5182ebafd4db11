"""The reference: diffusers' own pipelines, fed with the torch encoders' embeddings, same weights and seed.

One row of `ORACLES` per family, chosen by the type of the variant's architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging
from torch import nn

from export.checkpoint.committed import weights_folder
from export.checkpoint.read import load_part
from export.checkpoint.seeded import fill_seeded
from export.networks.faceclip.encoder import FaceCLIPEncoder
from export.networks.faceclip.face_t5 import FaceT5Encoder
from faceclip_serving.contract.names import DENOISER, VAE_DECODER
from faceclip_serving.contract.schedules import make_scheduler
from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variants.architectures import FACE_SIZE, FluxArchitecture, SDXLArchitecture
from faceclip_serving.contract.variants.flux import DISTILLED_GUIDANCE
from faceclip_serving.contract.variants.variant import Variant
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.face.prepare import prepare_face
from faceclip_serving.models.prompts import encode_prompt, load_tokenizer

_ENCODERS = ("face_clip_encoder", "face_t5_encoder")
"""Parts of a checkpoint that are run once, where they are loaded."""

Encoded = tuple[torch.Tensor, torch.Tensor]
"""embeddings and pooled, a row per prompt."""
Rows = tuple[Array, Array, dict[str, Array]]
"""aligned_faces, face_exist, and the ids of every tokenizer by the name of its input."""


class Encoder(Protocol):
    """(aligned_faces, face_exist, ids of each tokenizer in the variant's order) -> embeddings, pooled."""

    def __call__(self, *inputs: torch.Tensor) -> Encoded: ...


Draw = Callable[..., Array]
"""(negative and positive `Encoded`, scheduler, seed, steps, guidance_scale, height, width) -> RGB [height, width, 3] in [0, 1].

With `image` and `strength` by the pipeline that starts from a picture, with `mask_image` too by the one that stays within a mask."""


@dataclass(frozen=True)
class Oracle:
    """Torch networks of a variant, in FP32, none of them prepared for export."""

    variant: Variant
    encoder: Encoder
    draw: Draw
    vae: AutoencoderKL
    networks: Mapping[str, nn.Module]
    """What a picture is made with after the encoders, by the name of the component that does the same."""
    device: str = "cpu"
    """Of `networks`: in FP32 on the CPU, in half precision elsewhere. The encoder stays on the CPU."""
    masked_channels: tuple[int, ...] = ()
    """Latent channels for which there is a pipeline that stays within a mask."""
    packed: Callable[[torch.Tensor], torch.Tensor] = lambda noise: noise
    """Noise [1, channels, height, width] as the pipeline takes it."""

    @torch.no_grad()
    def encode(self, aligned_faces: Array, face_exist: Array, ids: Mapping[str, Array]) -> Encoded:
        """Embeddings and pooled rows of prompts with (or without) their faces."""
        of_tokenizers = [ids[tokens.input] for tokens in self.variant.tokens]
        return self.encoder(*map(torch.from_numpy, (aligned_faces, face_exist, *of_tokenizers)))

    @torch.no_grad()
    def picture(self, embeddings: torch.Tensor, pooled: torch.Tensor, **options: Any) -> Array:
        """One picture, uint8 [height, width, 3]. Row 0 of the conditioning is the negative prompt, row 1 the positive.

        `options`: scheduler, seed, steps, guidance_scale, height and width; of a picture that is changed also `image`, `strength` and
        perhaps `mask_image`, Pillow's pictures of that size.
        """
        embeddings, pooled = (rows.to(self.device, _dtype(self.device)) for rows in (embeddings, pooled))
        if self.device != "cpu":  # noise drawn in half precision would be other noise
            options["latents"] = self._noise(options).to(self.device, _dtype(self.device))
        image = self.draw(
            {
                "prompt_embeds": embeddings[1:2],
                "pooled_prompt_embeds": pooled[1:2],
                "negative_prompt_embeds": embeddings[:1],
                "negative_pooled_prompt_embeds": pooled[:1],
            },
            scheduler=make_scheduler(options["scheduler"], self.variant.scheduler_config),
            guidance_scale=options["guidance_scale"],
            num_inference_steps=options["steps"],
            height=options["height"],
            width=options["width"],
            generator=torch.Generator().manual_seed(options["seed"]),
            output_type="np",
            **{name: options[name] for name in ("latents", "image", "mask_image", "strength") if name in options},
        )
        return np.asarray((image * 255).round(), np.uint8)

    def _noise(self, options: Mapping[str, Any]) -> torch.Tensor:
        sides = (options[side] // self.variant.latent_scale for side in ("height", "width"))
        generator = torch.Generator().manual_seed(options["seed"])
        return self.packed(torch.randn((1, self.variant.latent_channels, *sides), generator=generator))


Filled = Callable[[nn.Module, str], Any]
"""(network, checkpoint part) -> the network with its weights."""


def _sdxl(variant: Variant, filled: Filled) -> Oracle:
    architecture = variant.architecture
    assert isinstance(architecture, SDXLArchitecture)
    unet = filled(UNet2DConditionModel(**architecture.unet), "unet")
    vae = filled(AutoencoderKL(**architecture.vae), "vae")

    def draw(conditioning: Mapping[str, torch.Tensor], scheduler: Any, **options: Any) -> Array:
        kinds = (StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline)
        kind = _kind_for(options, kinds)
        if kind is StableDiffusionXLImg2ImgPipeline:  # it takes the picture's size
            options = {name: value for name, value in options.items() if name not in ("height", "width")}
        pipeline = kind(
            vae=vae,
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=unet,
            scheduler=scheduler,
            add_watermarker=False,
        )
        return _run(pipeline, conditioning, options)

    encoder = filled(FaceCLIPEncoder(architecture, variant.tokens[0]), "face_clip_encoder")
    return Oracle(variant, encoder, draw, vae, {DENOISER: unet, VAE_DECODER: vae.decoder}, masked_channels=(4,))


def _flux(variant: Variant, filled: Filled) -> Oracle:
    architecture = variant.architecture
    assert isinstance(architecture, FluxArchitecture)
    transformer = filled(FluxTransformer2DModel(**architecture.transformer), "dit")
    vae = filled(AutoencoderKL(**architecture.vae), "flux_vae")

    def draw(conditioning: Mapping[str, torch.Tensor], scheduler: Any, guidance_scale: float, **options: Any) -> Array:
        pipeline = _kind_for(options, (FluxPipeline, FluxImg2ImgPipeline, FluxInpaintPipeline))(
            vae=vae,
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            transformer=transformer,
            scheduler=scheduler,
        )
        # What diffusers calls the guidance scale here is the distilled one; the negative prompt has a scale of its own.
        options |= {"true_cfg_scale": guidance_scale, "guidance_scale": DISTILLED_GUIDANCE}
        return _run(pipeline, conditioning, options)

    encoder = filled(FaceT5Encoder(architecture), "face_t5_encoder")
    networks = {DENOISER: transformer, VAE_DECODER: vae.decoder}
    return Oracle(
        variant,
        encoder,
        draw,
        vae,
        networks,
        masked_channels=(16,),
        packed=lambda noise: FluxPipeline._pack_latents(noise, *noise.shape),
    )


ORACLES: Mapping[type, Callable[[Variant, Filled], Oracle]] = {SDXLArchitecture: _sdxl, FluxArchitecture: _flux}


def _kind_for(options: Mapping[str, Any], kinds: tuple[Any, Any, Any]) -> Any:
    """The pipeline that draws from noise, from a picture, or within a mask."""
    return kinds[("image" in options) + ("mask_image" in options)]


def _run(pipeline: Any, conditioning: Mapping[str, torch.Tensor], options: Mapping[str, Any]) -> Array:
    pipeline.set_progress_bar_config(disable=True)
    logging.set_verbosity_error()  # FP32 is what is wanted, and a decoder that is cast to it says so each time
    return np.asarray(pipeline(**conditioning, **options).images[0])


def _dtype(device: str) -> torch.dtype:
    return torch.float32 if device == "cpu" else torch.float16


def load_oracle(variant: Variant, checkpoint: Path | None = None, device: str = "cpu") -> Oracle:
    """The networks of a variant, from a checkpoint folder, its own weights, or with seeded ones.

    `device`: where pictures are made, in half precision if it is not the CPU; diffusers lets the decoder compute in FP32 where
    half precision is too narrow for it.
    """
    folder = weights_folder(variant, checkpoint)

    def filled(module: nn.Module, part: str) -> nn.Module:
        if folder is None:
            fill_seeded(module)
        else:
            load_part(module, folder, part)
        module = module.eval().requires_grad_(False)
        return module if device == "cpu" or part in _ENCODERS else module.to(device, _dtype(device))

    return replace(ORACLES[type(variant.architecture)](variant, filled), device=device)


def reference_rows(variant: Variant, prepare_folder: Path, photo: bytes | None, prompt: str) -> Rows:
    """What the oracle encodes: the (negative, positive) rows, as the published inference makes them."""
    image = np.zeros((2, 3, FACE_SIZE, FACE_SIZE), np.float32)
    if photo is not None:
        image[1] = prepare_face(photo, 0, False, YuNet()).crop
    texts = ((variant.defaults.negative_prompt, False), (prompt, photo is not None))
    ids = {}
    for tokens in variant.tokens:
        tokenizer = load_tokenizer(prepare_folder / tokens.tokenizer)
        ids[tokens.input] = np.stack([encode_prompt(tokenizer, tokens, text, prefixed).ids for text, prefixed in texts])
    return image, np.array([False, photo is not None]), ids
