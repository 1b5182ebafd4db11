"""The widths of `nano`, and how its networks start. FaceCLIP's own modules of `export` are trained; nothing is defined twice.

`ARCHITECTURE` and `TOKENS` are what the served variant consists of; the recipe reads them from here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from export.faceclip import FaceCLIPEncoder
from export.faceclip.fuser import FusionLayer
from faceclip_serving.variants import SDXL_SCHEDULER, FaceViT, Fuser, SDXLArchitecture, TextTower, Tokens

VOCABULARY = 926
MAX_TOKENS = 56
LATENT_CHANNELS = 4
LATENT_SCALE = 4

SCHEDULER: Mapping[str, Any] = {**SDXL_SCHEDULER, "prediction_type": "v_prediction"}
"""SDXL's noise schedule; the denoiser predicts velocity, which learns composition much sooner."""

TOKENS = Tokens(
    input="input_ids",
    tokenizer="tokenizer.json",
    max_tokens=MAX_TOKENS,
    begin=VOCABULARY - 2,
    end=VOCABULARY - 1,
    padding=0,
    face_prefix="Photo of a id person. ",
    identity_token=571,
)

ARCHITECTURE = SDXLArchitecture(
    face=FaceViT(width=96, depth=4, heads=4, classes=128, image_size=112, patch_size=14),
    towers={
        "face_clip_l": TextTower(64, heads=4, layers=2, activation="quick_gelu", vocabulary=VOCABULARY, max_tokens=MAX_TOKENS),
        "face_clip_g": TextTower(128, heads=4, layers=3, activation="gelu", vocabulary=VOCABULARY, max_tokens=MAX_TOKENS),
    },
    fuser=Fuser(rounds=2, attention_width=128, attention_heads=4, text_heads=4, text_ffn=256, face_heads=4, face_ffn=256),
    unet={
        "sample_size": 32,
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (32, 64, 128),
        "layers_per_block": 1,
        "transformer_layers_per_block": (1, 1, 1),
        "attention_head_dim": (1, 2, 4),
        "cross_attention_dim": 192,
        "use_linear_projection": True,
        "norm_num_groups": 8,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 32,
        "projection_class_embeddings_input_dim": 128 + 6 * 32,
    },
    vae={
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (16, 32, 64),
        "layers_per_block": 1,
        "latent_channels": LATENT_CHANNELS,
        "norm_num_groups": 4,
        "sample_size": 128,
        "mid_block_add_attention": False,
        "scaling_factor": 1.0,
    },
)


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
