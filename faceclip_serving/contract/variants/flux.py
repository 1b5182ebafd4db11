"""FaceT5-FLUX in its sizes. Sources: arXiv 2504.14202 and the published inference settings; FLUX.1-dev's configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..schedules import FLOW_SCHEDULERS, begun_steps, shifted_by_size
from ..tensors import Array, DType, Tensor
from .architectures import FaceViT, FluxArchitecture, Fuser, T5Tower, TextTower
from .sdxl import SDXL_VAE, TINY_VOCABULARY
from .variant import OWN_WEIGHTS, Defaults, Licence, Limits, Tokens, Variant

DISTILLED_GUIDANCE = 1.0
"""FLUX.1-dev's guidance input. The published pipeline keeps it at 1 and guides by a negative prompt, as SDXL is guided."""


FLUX_SCHEDULER: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}

_FLUX_TRANSFORMER: Mapping[str, Any] = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": (16, 56, 56),
}

_FLUX_VAE: Mapping[str, Any] = {
    **SDXL_VAE,
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}

_ARCHITECTURE = FluxArchitecture(
    face=FaceViT(width=768, depth=24, heads=8, classes=512),
    text=T5Tower(width=4096, ffn=10240, heads=64, head_width=64, layers=24),
    pooled=TextTower(width=768, heads=12, layers=12, activation="quick_gelu"),
    fuser=Fuser(),
    transformer=_FLUX_TRANSFORMER,
    vae=_FLUX_VAE,
)

_POOLED_TOKENS = Tokens(
    input="pooled_ids",
    reader="CLIP",
    tokenizer="pooled_tokenizer.json",
    source="flux/tokenizer",
    max_tokens=77,
    begin=49406,
    end=49407,
    padding=49407,
)

_TEXT_TOKENS = Tokens(
    input="input_ids",
    reader="T5",
    tokenizer="tokenizer.json",
    source="flux/tokenizer_2",
    max_tokens=512,
    begin=None,
    end=1,
    padding=0,
    words=(3, 32099),
)

_DEFAULTS = Defaults(
    height=1152,
    width=864,
    num_inference_steps=50,
    guidance_scale=3.5,
    scheduler="FlowMatchEulerDiscreteScheduler",
    strength=0.6,
    mask_strength=0.6,
)

_TINY_T5_VOCABULARY = 384
"""Size of export/assets/tiny-t5-tokenizer."""


def flux_guidance(height: int, width: int) -> dict[str, Array]:
    """The distilled guidance, the same for every size."""
    return {"guidance": np.array([[DISTILLED_GUIDANCE]], np.float32)}


def _flux(
    name: str,
    architecture: FluxArchitecture,
    weights: str,
    pooled_tokens: Tokens,
    text_tokens: Tokens,
    defaults: Defaults,
    limits: Limits,
    licence: Licence = OWN_WEIGHTS,
) -> Variant:
    face, text = architecture.face, architecture.text
    identity = Tensor("class_token", DType.FP32, ("faces", 1, face.classes), "identity vector, unit length")
    patches = Tensor("patch_token", DType.FP32, ("faces", face.patches, face.width), "face patches")
    return Variant(
        name=name,
        architecture=architecture,
        weights=weights,
        tokens=(pooled_tokens, text_tokens),
        face_features=(identity, patches),
        fused_features=(patches,),
        conditioning=(
            Tensor("embeddings", DType.FP32, ("rows", text.max_tokens, text.width), "T5's tokens, fused with the face"),
            Tensor("pooled", DType.FP32, ("rows", architecture.pooled.width), "CLIP's text row at the end token"),
        ),
        extras=(Tensor("guidance", DType.FP32, ("rows", 1), "distilled guidance scale"),),
        extras_for=flux_guidance,
        latent_channels=architecture.vae["latent_channels"],
        latent_scale=2 ** (len(architecture.vae["block_out_channels"]) - 1),
        schedulers=tuple(FLOW_SCHEDULERS),
        scheduler_config=FLUX_SCHEDULER,
        timesteps_for=shifted_by_size,
        first_step=begun_steps,
        defaults=defaults,
        limits=limits,
        licence=licence,
    )


FLUX = _flux(
    "flux",
    _ARCHITECTURE,
    "checkpoint",
    _POOLED_TOKENS,
    _TEXT_TOKENS,
    _DEFAULTS,
    Limits((256, 2048), (256, 2048), size_multiple=16),
    Licence({"FaceCLIP": "CC BY-NC 4.0", "FLUX.1-dev": "FLUX.1 [dev] Non-Commercial License"}, commercial=False),
)

TINY_FLUX = _flux(
    "tiny-flux",
    replace(
        _ARCHITECTURE,
        face=FaceViT(width=48, depth=2, heads=4, classes=32),
        text=T5Tower(width=64, ffn=128, heads=4, head_width=16, layers=2, vocabulary=_TINY_T5_VOCABULARY, max_tokens=128),
        pooled=TextTower(48, heads=4, layers=2, activation="quick_gelu", vocabulary=TINY_VOCABULARY),
        transformer={
            **_FLUX_TRANSFORMER,
            "num_layers": 2,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 4,
            "joint_attention_dim": 64,
            "pooled_projection_dim": 48,
            "axes_dims_rope": (4, 6, 6),
        },
        vae={**_FLUX_VAE, "block_out_channels": (16, 16, 32, 32), "norm_num_groups": 8, "sample_size": 128},
    ),
    "seeded",
    replace(
        _POOLED_TOKENS,
        source="tiny-tokenizer",
        begin=TINY_VOCABULARY - 2,
        end=TINY_VOCABULARY - 1,
        padding=TINY_VOCABULARY - 1,
    ),
    replace(_TEXT_TOKENS, source="tiny-t5-tokenizer", max_tokens=128, words=(3, _TINY_T5_VOCABULARY - 1)),
    replace(_DEFAULTS, height=192, width=128, num_inference_steps=8),
    Limits((64, 1344), (64, 1344), size_multiple=16),
)
