"""Which networks of diffusers' pipelines LoRA files are made for, and where their layers lie in ours.

The denoisers are diffusers' own. SDXL's text encoders are our towers: CLIP by its names there, OpenCLIP's, with one matrix for query, key
and value, here. Knows names; reading files and what they do to a weight is in `checkpoint`.
"""

from __future__ import annotations

from typing import Any

from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from torch import nn

from faceclip_serving.contract.variants.architectures import FluxArchitecture, SDXLArchitecture
from faceclip_serving.contract.variants.variant import Variant

from ..checkpoint.adapters import Family, Part, Place
from .faceclip.face_t5_pooled import PooledText

_IN_TOWER = {
    "self_attn.q_proj": ("attn.in_proj_weight", (0, 3)),
    "self_attn.k_proj": ("attn.in_proj_weight", (1, 3)),
    "self_attn.v_proj": ("attn.in_proj_weight", (2, 3)),
    "self_attn.out_proj": ("attn.out_proj.weight", (0, 1)),
    "mlp.fc1": ("mlp.c_fc.weight", (0, 1)),
    "mlp.fc2": ("mlp.c_proj.weight", (0, 1)),
}


def _sdxl(variant: Variant) -> SDXLArchitecture:
    assert isinstance(variant.architecture, SDXLArchitecture)
    return variant.architecture


def _flux(variant: Variant) -> FluxArchitecture:
    assert isinstance(variant.architecture, FluxArchitecture)
    return variant.architecture


def _as_it_is(_variant: Variant, layer: str) -> Place:
    return Place(f"{layer}.weight")


def _tower(name: str, number: int) -> Part:
    """The n-th text encoder in files is the n-th tower. It has transformers' names, as FLUX's pooled tower has here."""

    def network(variant: Variant) -> nn.Module:
        return PooledText(list(_sdxl(variant).towers.values())[number])

    def place(variant: Variant, layer: str) -> Place:
        tower = list(_sdxl(variant).towers)[number]
        block, inner = layer.removeprefix("text_model.encoder.layers.").split(".", 1)
        ours, part = _IN_TOWER[inner]
        return Place(f"{tower}.transformer.resblocks.{block}.{ours}", part)

    return Part(name, network, place)


UNET = Part("unet", lambda variant: UNet2DConditionModel(**_sdxl(variant).unet), _as_it_is)
TOWERS = (_tower("text_encoder", 0), _tower("text_encoder_2", 1))
DIT = Part("transformer", lambda variant: FluxTransformer2DModel(**_flux(variant).transformer), _as_it_is)
POOLED = Part(
    "text_encoder", lambda variant: PooledText(_flux(variant).pooled), lambda _, layer: Place(f"encoder_1.{layer}.weight")
)


def _sdxl_converter() -> Any:
    from diffusers.loaders import StableDiffusionXLLoraLoaderMixin

    return StableDiffusionXLLoraLoaderMixin


def _flux_converter() -> Any:
    from diffusers.loaders import FluxLoraLoaderMixin

    return FluxLoraLoaderMixin


FAMILIES = {
    SDXLArchitecture: Family(_sdxl_converter, (UNET, *TOWERS)),
    FluxArchitecture: Family(_flux_converter, (DIT, POOLED)),
}
