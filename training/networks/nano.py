"""How the networks of `nano` start. FaceCLIP's own modules of `export` are trained, at the widths of the served variant."""

from __future__ import annotations

import math

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from export.networks.faceclip import FaceCLIPEncoder
from export.networks.faceclip.fuser import FusionLayer
from faceclip_serving.contract.variants.architectures import SDXLArchitecture
from faceclip_serving.contract.variants.sdxl import NANO

assert isinstance(NANO.architecture, SDXLArchitecture)
ARCHITECTURE = NANO.architecture
(TOKENS,) = NANO.tokens


def initialise(module: nn.Module) -> None:
    """Random starting weights for modules that were built empty: small residual branches, norms at one, a fuser near identity."""
    for name, parameter in module.named_parameters():
        last = name.rsplit(".", 1)[-1]
        if "norm" in name.lower() or "ln_" in name or ".feature.1." in name or ".feature.3." in name:
            nn.init.ones_(parameter) if last == "weight" else nn.init.zeros_(parameter)
        elif last == "bias" or last.endswith("_bias") or parameter.ndim < 2:
            nn.init.zeros_(parameter)
        elif "embed" in name and parameter.ndim != 4 and "proj" not in name:
            nn.init.normal_(parameter, std=0.02)
        else:
            fan_in = math.prod(parameter.shape[1:])
            residual = any(part in name for part in ("out_proj", "output_proj", "c_proj", "linear2", "fc2", "attn.proj"))
            nn.init.normal_(parameter, std=(0.3 if residual else 1.0) / math.sqrt(fan_in))
    for part in module.modules():
        if isinstance(part, FusionLayer):
            nn.init.constant_(part.gamma_v, 0.3)
            nn.init.constant_(part.gamma_l, 0.3)
    for name, parameter in module.named_parameters():
        if "sampling_offsets" in name:
            nn.init.normal_(parameter, std=0.02) if parameter.ndim > 1 else nn.init.uniform_(parameter, -2, 2)
        elif "text_embed_proj.weight" in name:
            nn.init.eye_(parameter)


def make_encoder(seed: int) -> FaceCLIPEncoder:
    torch.manual_seed(seed)
    encoder = FaceCLIPEncoder(ARCHITECTURE, TOKENS)
    initialise(encoder)
    return encoder


def make_vae(seed: int) -> AutoencoderKL:
    torch.manual_seed(seed)
    return AutoencoderKL(**ARCHITECTURE.vae)


def make_unet(seed: int) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(**ARCHITECTURE.unet)
