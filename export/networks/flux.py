"""The networks of the FaceT5-FLUX family, each as a pure function of its signature's tensors.

Knows diffusers' FLUX transformer and the FaceT5 encoder; where weights come from is the caller's affair (`filled`). The denoiser
takes and returns latents as pictures: packing them into tokens, and where each token stands, is settled inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional

from faceclip_serving.contract.variants.architectures import FACE_SIZE, FluxArchitecture
from faceclip_serving.contract.variants.variant import Variant

from .faceclip.face_t5 import FaceT5Encoder, face_features
from .vae import VAEDecoder, VAEEncoder
from .wide import HEADROOM, WideLinear

Filled = Callable[..., nn.Module]
"""(constructor, checkpoint part, start of names) -> the network in FP32 and evaluation mode, with those weights, or with all."""

_FACES = "encoder_2.face_encoder."

_PACK = 2
"""Latent cells per side of an image token."""
_ROPE_BASE = 10000.0
_TRAIN_STEPS = 1000.0


class FaceEncoder(nn.Module):
    """Aligned faces -> who they are, and their patches."""

    def __init__(self, encoder: FaceT5Encoder) -> None:
        super().__init__()
        self.notes: dict[str, object] = {}
        self.face_encoder = encoder.encoder_2.face_encoder

    def forward(self, aligned_faces: Tensor) -> tuple[Tensor, Tensor]:
        return face_features(self.face_encoder, aligned_faces)


class TextEncoder(nn.Module):
    """Prompts fused with faces. The features of "no face", the all-zero image, are computed here once, in FP32."""

    no_face_patch_token: Tensor

    def __init__(self, encoder: FaceT5Encoder) -> None:
        super().__init__()
        self.notes: dict[str, object] = {}
        with torch.no_grad():
            _, patch_token = face_features(encoder.encoder_2.face_encoder, torch.zeros(1, 3, FACE_SIZE, FACE_SIZE))
        self.register_buffer("no_face_patch_token", patch_token)
        del encoder.encoder_2.face_encoder  # its memory is free before the export
        for block in encoder.encoder_2.t5_encoder.block:  # what they read and what they answer leaves half's range
            layer: Any = block.ff_layer
            layer.wo = WideLinear(layer.wo, HEADROOM)
        self.encoder = encoder

    def forward(self, pooled_ids: Tensor, input_ids: Tensor, face_index: Tensor, patch_token: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder.encode_rows(pooled_ids, input_ids, face_index, patch_token, self.no_face_patch_token)


class Denoiser(nn.Module):
    """FLUX's transformer for rows at different times, of any latent size that packs into whole tokens."""

    def __init__(self, transformer: FluxTransformer2DModel, largest_side: int) -> None:
        super().__init__()
        self.notes: dict[str, object] = {}
        transformer.pos_embed = RotaryTables(transformer.config.axes_dims_rope, largest_side // _PACK)
        widen(transformer)
        self.transformer = transformer

    def forward(self, latents: Tensor, timestep: Tensor, embeddings: Tensor, pooled: Tensor, guidance: Tensor) -> tuple[Tensor]:
        cells = functional.pixel_unshuffle(latents, _PACK)  # channels ordered as (channel, line, column)
        height, width = cells.shape[2:]
        (velocity,) = self.transformer(
            hidden_states=cells.flatten(2).transpose(1, 2),
            encoder_hidden_states=embeddings,
            pooled_projections=pooled,
            timestep=timestep.squeeze(1) / _TRAIN_STEPS,  # the transformer multiplies by it again
            guidance=guidance.squeeze(1),
            img_ids=_places(height, width, latents.device),
            txt_ids=torch.zeros(embeddings.shape[1], 3, dtype=torch.int64, device=latents.device),
            return_dict=False,
        )
        packed = velocity.transpose(1, 2).unflatten(2, (height, width))
        return (functional.pixel_shuffle(packed, _PACK),)


def _places(height: int, width: int, device: torch.device) -> Tensor:
    """Place of each image token on the three rotary axes, int64 [height * width, 3]: always 0, line, column."""
    lines = torch.arange(height, device=device)[:, None].expand(height, width)
    columns = torch.arange(width, device=device)[None, :].expand(height, width)
    return torch.stack((torch.zeros_like(lines), lines, columns), dim=-1).flatten(0, 1)


class RotaryTables(nn.Module):
    """Rotary embedding read from tables: places int64 [tokens, axes] -> cosines and sines, FP32 [tokens, sum of axis widths].

    The angles need FP64 to agree with diffusers, and runtimes have none. Places are small whole numbers, so cosine and sine of
    all that can occur are computed once, in FP64, and looked up.
    """

    def __init__(self, axis_widths: Sequence[int], largest: int) -> None:
        super().__init__()
        self.axes = len(axis_widths)
        for axis, width in enumerate(axis_widths):
            frequencies = _ROPE_BASE ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
            angles = torch.arange(largest, dtype=torch.float64)[:, None] * frequencies
            for name, table in (("cos", angles.cos()), ("sin", angles.sin())):
                self.register_buffer(f"{name}_{axis}", table.repeat_interleave(2, dim=1).float())

    def forward(self, places: Tensor) -> tuple[Tensor, Tensor]:
        cosines, sines = (
            torch.cat([getattr(self, f"{name}_{axis}")[places[:, axis]] for axis in range(self.axes)], dim=-1)
            for name in ("cos", "sin")
        )
        return cosines, sines


# ------------------------------------------------------------------------------------------------------- half precision
def widen(transformer: FluxTransformer2DModel) -> None:
    """Makes the residual streams FP32 in every precision, in place; in FP32 nothing changes.

    FLUX's streams, and some of what is added to them, leave half's range: diffusers clips them there. With FP32 modulation every
    sum and product outside the matrices is FP32, and the matrices that feed the streams return FP32 from inputs that are scaled
    down by a power of two, so that neither has to be clipped and all weights can still be FP16.
    """
    transformer.x_embedder = WideLinear(transformer.x_embedder)
    transformer.context_embedder = WideLinear(transformer.context_embedder)
    for block in transformer.transformer_blocks:
        for norm in (block.norm1, block.norm1_context):
            norm.linear = WideLinear(norm.linear)
        for feed_forward in (block.ff, block.ff_context):
            feed_forward.net[2] = WideLinear(feed_forward.net[2], HEADROOM)
        block.attn.to_out[0] = WideLinear(block.attn.to_out[0], HEADROOM)
        block.attn.to_add_out = WideLinear(block.attn.to_add_out, HEADROOM)
    for block in transformer.single_transformer_blocks:
        block.norm.linear = WideLinear(block.norm.linear)
        block.proj_out = WideLinear(block.proj_out, HEADROOM)


# -------------------------------------------------------------------------------------------------------------- builders
def face_encoder(variant: Variant, filled: Filled) -> FaceEncoder:
    return FaceEncoder(_encoder(variant, filled, _FACES))  # the rest is 24 times as large


def text_encoder(variant: Variant, filled: Filled) -> TextEncoder:
    return TextEncoder(_encoder(variant, filled))


def denoiser(variant: Variant, filled: Filled) -> Denoiser:
    transformer = filled(lambda: FluxTransformer2DModel(**_architecture(variant).transformer), "dit")
    return Denoiser(transformer, max(variant.latent_height.max, variant.latent_width.max))


def vae_encoder(variant: Variant, filled: Filled) -> VAEEncoder:
    config = _architecture(variant).vae
    return VAEEncoder(filled(lambda: AutoencoderKL(**config), "flux_vae"), config)


def decoder(variant: Variant, filled: Filled) -> VAEDecoder:
    config = _architecture(variant).vae
    return VAEDecoder(filled(lambda: AutoencoderKL(**config), "flux_vae"), config)


def shallow_denoiser(variant: Variant) -> Variant:
    """One block of each kind."""
    architecture = _architecture(variant)
    transformer = {**architecture.transformer, "num_layers": 1, "num_single_layers": 1}
    return replace(variant, name=f"{variant.name}, 1 + 1 blocks", architecture=replace(architecture, transformer=transformer))


def shallow_text_encoder(variant: Variant) -> Variant:
    """Two blocks of T5 and two rounds of the fuser; CLIP, which is small, as it is."""
    architecture = _architecture(variant)
    text = replace(architecture.text, layers=2)
    fuser = replace(architecture.fuser, rounds=2)
    return replace(
        variant,
        name=f"{variant.name}, 2 T5 blocks, 2 fuser rounds",
        architecture=replace(architecture, text=text, fuser=fuser),
    )


def _encoder(variant: Variant, filled: Filled, only: str = "") -> FaceT5Encoder:
    encoder = filled(lambda: FaceT5Encoder(_architecture(variant)), "face_t5_encoder", only)
    assert isinstance(encoder, FaceT5Encoder)
    return encoder


def _architecture(variant: Variant) -> FluxArchitecture:
    assert isinstance(variant.architecture, FluxArchitecture)
    return variant.architecture
