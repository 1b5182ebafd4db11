"""FaceCLIP-SDXL in its sizes. Sources: arXiv 2504.14202 and the published inference settings; SDXL-base's configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..schedules import EPSILON_SCHEDULERS, spaced_by_scheduler, whole_steps
from ..tensors import Array, DType, Tensor
from .architectures import FaceViT, Fuser, SDXLArchitecture, TextTower
from .variant import OWN_WEIGHTS, Defaults, Licence, Limits, Tokens, Variant

SDXL_SCHEDULER: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}

_SDXL_UNET: Mapping[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}

SDXL_VAE: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
}

_ARCHITECTURE = SDXLArchitecture(
    face=FaceViT(width=768, depth=24, heads=8, classes=512),
    towers={
        "face_clip_l": TextTower(width=768, heads=12, layers=12, activation="quick_gelu"),
        "face_clip_g": TextTower(width=1280, heads=20, layers=32, activation="gelu"),
    },
    fuser=Fuser(),
    unet=_SDXL_UNET,
    vae=SDXL_VAE,
)

_TOKENS = Tokens(
    input="input_ids",
    tokenizer="tokenizer.json",
    max_tokens=77,
    begin=49406,
    end=49407,
    padding=0,
    face_prefix="Photo of a id person. ",
    identity_token=1014,
)

_DEFAULTS = Defaults(height=1152, width=864, num_inference_steps=50, guidance_scale=5.0)

TINY_VOCABULARY = 926
"""Size of export/assets/tiny-tokenizer."""

NANO_VOCABULARY = 926
"""Size of weights/nano/tokenizer, learnt from the captions of `training`."""

_NANO_TOKENS = 56


def sdxl_time_ids(height: int, width: int) -> dict[str, Array]:
    """SDXL's size micro-conditioning: original size, crop corner, target size."""
    return {"time_ids": np.array([[height, width, 0, 0, height, width]], np.float32)}


def _sdxl(
    name: str,
    architecture: SDXLArchitecture,
    weights: str,
    tokens: Tokens,
    defaults: Defaults,
    limits: Limits,
    scheduler_config: Mapping[str, Any] = SDXL_SCHEDULER,
    licence: Licence = OWN_WEIGHTS,
) -> Variant:
    face, towers = architecture.face, list(architecture.towers.values())
    features = (
        Tensor("class_token", DType.FP32, ("faces", len(towers), face.classes), "identity vector per branch, unit length"),
        Tensor("patch_token", DType.FP32, ("faces", len(towers), face.patches, face.width), "face patches per branch"),
    )
    return Variant(
        name=name,
        architecture=architecture,
        weights=weights,
        tokens=(tokens,),
        face_features=features,
        fused_features=features,
        conditioning=(
            Tensor(
                "embeddings",
                DType.FP32,
                ("rows", tokens.max_tokens, sum(tower.width for tower in towers)),
                "fused face-text tokens of both branches, concatenated",
            ),
            Tensor("pooled", DType.FP32, ("rows", towers[-1].width), "text row at the end token, before projection"),
        ),
        extras=(Tensor("time_ids", DType.FP32, ("rows", 6), "height, width, 0, 0, height, width in pixels"),),
        extras_for=sdxl_time_ids,
        latent_channels=architecture.vae["latent_channels"],
        latent_scale=2 ** (len(architecture.vae["block_out_channels"]) - 1),
        schedulers=tuple(EPSILON_SCHEDULERS),
        scheduler_config=scheduler_config,
        timesteps_for=spaced_by_scheduler,
        first_step=whole_steps,
        defaults=defaults,
        limits=limits,
        licence=licence,
    )


SDXL = _sdxl(
    "sdxl",
    _ARCHITECTURE,
    "checkpoint",
    _TOKENS,
    _DEFAULTS,
    Limits((256, 2048), (256, 2048), chunks=3),
    licence=Licence({"FaceCLIP": "CC BY-NC 4.0", "SDXL-base 1.0": "CreativeML Open RAIL++-M"}, commercial=False),
)

TINY_SDXL = _sdxl(
    "tiny-sdxl",
    replace(
        _ARCHITECTURE,
        face=FaceViT(width=48, depth=2, heads=4, classes=32),
        towers={
            "face_clip_l": TextTower(64, heads=4, layers=2, activation="quick_gelu", vocabulary=TINY_VOCABULARY),
            "face_clip_g": TextTower(96, heads=6, layers=3, activation="gelu", vocabulary=TINY_VOCABULARY),
        },
        unet={
            **_SDXL_UNET,
            "sample_size": 16,
            "block_out_channels": (32, 64, 64),
            "transformer_layers_per_block": (1, 1, 2),
            "attention_head_dim": (2, 4, 4),
            "cross_attention_dim": 160,
            "norm_num_groups": 8,
            "addition_time_embed_dim": 16,
            "projection_class_embeddings_input_dim": 96 + 6 * 16,
        },
        vae={**SDXL_VAE, "block_out_channels": (16, 16, 32, 32), "norm_num_groups": 8, "sample_size": 128},
    ),
    "seeded",
    replace(_TOKENS, source="tiny-tokenizer", begin=TINY_VOCABULARY - 2, end=TINY_VOCABULARY - 1, identity_token=512),
    replace(_DEFAULTS, height=192, width=128, num_inference_steps=8),
    Limits((64, 1344), (64, 1344), chunks=3),
)

NANO = _sdxl(
    "nano",
    replace(
        _ARCHITECTURE,
        face=FaceViT(width=96, depth=4, heads=4, classes=128, image_size=112, patch_size=14),
        towers={
            "face_clip_l": TextTower(
                64, 4, layers=2, activation="quick_gelu", vocabulary=NANO_VOCABULARY, max_tokens=_NANO_TOKENS
            ),
            "face_clip_g": TextTower(128, 4, layers=3, activation="gelu", vocabulary=NANO_VOCABULARY, max_tokens=_NANO_TOKENS),
        },
        fuser=Fuser(rounds=2, attention_width=128, attention_heads=4, text_heads=4, text_ffn=256, face_heads=4, face_ffn=256),
        unet={
            **_SDXL_UNET,
            "in_channels": 8,
            "out_channels": 8,
            "sample_size": 16,
            "down_block_types": ("CrossAttnDownBlock2D",) * 2,
            "up_block_types": ("CrossAttnUpBlock2D",) * 2,
            "block_out_channels": (64, 128),
            "layers_per_block": 1,
            "transformer_layers_per_block": (1, 1),
            "attention_head_dim": (2, 4),
            "cross_attention_dim": 192,
            "norm_num_groups": 8,
            "addition_time_embed_dim": 32,
            "projection_class_embeddings_input_dim": 128 + 6 * 32,
        },
        vae={
            **SDXL_VAE,
            # Twice SDXL's channels: a portrait of 16 x 16 cells keeps eyes and mouths.
            "latent_channels": 8,
            "block_out_channels": (16, 32, 48, 64),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "sample_size": 128,
            "mid_block_add_attention": False,
            "scaling_factor": 1.0,
        },
    ),
    "committed",
    replace(_TOKENS, max_tokens=_NANO_TOKENS, begin=NANO_VOCABULARY - 2, end=NANO_VOCABULARY - 1, identity_token=571),
    Defaults(128, 128, num_inference_steps=20, guidance_scale=2.5, scheduler="DPMSolverMultistepScheduler", negative_prompt=""),
    Limits((128, 128), (128, 384), chunks=3),
    # It predicts velocity, which learns composition much sooner than predicted noise does.
    {**SDXL_SCHEDULER, "prediction_type": "v_prediction"},
)
"""FaceCLIP in small, trained by this project on pictures that it draws itself: weights/nano."""
