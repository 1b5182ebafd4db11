"""The networks of the FaceCLIP-SDXL family, each as a pure function of its signature's tensors.

Knows diffusers' SDXL UNet and the FaceCLIP encoder; where weights come from is the caller's affair (`filled`). Every network
takes and returns the tensors of its signature by position, and returns a tuple.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from faceclip_serving.contract.variants.architectures import FACE_SIZE, SDXLArchitecture
from faceclip_serving.contract.variants.variant import Variant

from .faceclip.encoder import FaceCLIPEncoder, face_encoders_equal
from .resampling import replace_upsampling
from .vae import VAEDecoder, VAEEncoder

Filled = Callable[[Callable[[], nn.Module], str], nn.Module]
"""(constructor, checkpoint part) -> the network with its weights, in FP32 and evaluation mode."""


class FaceEncoder(nn.Module):
    """Aligned faces -> identity features of every branch. One run serves all branches whose face encoders are equal."""

    def __init__(self, encoder: FaceCLIPEncoder) -> None:
        super().__init__()
        self.shared = face_encoders_equal(encoder)
        self.notes: dict[str, object] = {"shared_face_encoder": self.shared}
        used = encoder.branches[:1] if self.shared else encoder.branches
        for branch in encoder.branches:
            _keep_only(branch, {"face_encoder"} if branch in used else set())
        self.encoder = encoder

    def forward(self, aligned_faces: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder.encode_faces(aligned_faces, self.shared)


class TextEncoder(nn.Module):
    """Prompts fused with faces. The features of "no face", the all-zero image, are computed here once, in FP32."""

    no_face_class_token: Tensor
    no_face_patch_token: Tensor

    def __init__(self, encoder: FaceCLIPEncoder) -> None:
        super().__init__()
        self.notes: dict[str, object] = {}
        with torch.no_grad():
            class_token, patch_token = encoder.encode_faces(torch.zeros(1, 3, FACE_SIZE, FACE_SIZE), shared=False)
        self.register_buffer("no_face_class_token", class_token)
        self.register_buffer("no_face_patch_token", patch_token)
        for branch in encoder.branches:
            _keep_only(branch.face_encoder, {"pos_embed"})
        self.encoder = encoder

    def forward(self, input_ids: Tensor, face_index: Tensor, class_token: Tensor, patch_token: Tensor) -> tuple[Tensor, Tensor]:
        no_face = (self.no_face_class_token, self.no_face_patch_token)
        return self.encoder.encode_rows(input_ids, face_index, class_token, patch_token, *no_face)


class Denoiser(nn.Module):
    """SDXL's UNet for rows at different times, of any latent size."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.notes: dict[str, object] = {}
        replace_upsampling(unet)
        # The UNet passes the sizes of its skip connections upwards only if some side is no multiple of 2 ** num_upsamplers. A
        # trace would settle that question for the size of its example. No side is a multiple of 2 ** 64, so the sizes are
        # always passed; where sides are even they equal the doubled ones, and the result is the same.
        unet.num_upsamplers = 64
        self.unet = unet

    def forward(self, latents: Tensor, timestep: Tensor, embeddings: Tensor, pooled: Tensor, time_ids: Tensor) -> tuple[Tensor]:
        added = {"text_embeds": pooled, "time_ids": time_ids}
        (noise,) = self.unet(latents, timestep.squeeze(1), embeddings, added_cond_kwargs=added, return_dict=False)
        return (noise,)


def face_encoder(variant: Variant, filled: Filled) -> FaceEncoder:
    return FaceEncoder(_encoder(variant, filled))


def text_encoder(variant: Variant, filled: Filled) -> TextEncoder:
    return TextEncoder(_encoder(variant, filled))


def denoiser(variant: Variant, filled: Filled) -> Denoiser:
    return Denoiser(filled(lambda: UNet2DConditionModel(**_architecture(variant).unet), "unet"))


def vae_encoder(variant: Variant, filled: Filled) -> VAEEncoder:
    config = _architecture(variant).vae
    return VAEEncoder(filled(lambda: AutoencoderKL(**config), "vae"), config)


def decoder(variant: Variant, filled: Filled) -> VAEDecoder:
    config = _architecture(variant).vae
    return VAEDecoder(filled(lambda: AutoencoderKL(**config), "vae"), config)


def _encoder(variant: Variant, filled: Filled) -> FaceCLIPEncoder:
    (tokens,) = variant.tokens
    encoder = filled(lambda: FaceCLIPEncoder(_architecture(variant), tokens), "face_clip_encoder")
    assert isinstance(encoder, FaceCLIPEncoder)
    return encoder


def _architecture(variant: Variant) -> SDXLArchitecture:
    assert isinstance(variant.architecture, SDXLArchitecture)
    return variant.architecture


def _keep_only(module: nn.Module, names: set[str]) -> None:
    """Drops the children and parameters of `module` that are not in `names`, so that their memory is free before the export."""
    for name in [n for n, _ in (*module.named_children(), *module.named_parameters(recurse=False)) if n not in names]:
        delattr(module, name)


def sensitive_weights(variant: Variant) -> tuple[str, ...]:
    """Starts of the names of UNet weights whose rounding pictures show most: those of the attentions that see most cells, and what leads
    into and out of all others (docs/measured.md)."""
    architecture = variant.architecture
    assert isinstance(architecture, SDXLArchitecture)
    levels = architecture.unet["down_block_types"]
    outermost = next(level for level, kind in enumerate(levels) if "Attn" in kind)
    blocks = (f"down_blocks.{outermost}", f"up_blocks.{len(levels) - 1 - outermost}")
    return (*(f"unet.{block}.attentions." for block in blocks), "unet.*.attentions.*.proj_in.", "unet.*.attentions.*.proj_out.")
