"""The models that can be served, as data. A variant is a value: no code compares its name or its family.

`Architecture` values hold the widths that `export` builds networks from; everything else of a `Variant` is what the server
needs: its tensors, its token ids, its defaults and limits. Sources: arXiv 2504.14202 and the published inference settings
for the sizes, SDXL-base's published configs for UNet, VAE and scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .schedules import EPSILON_SCHEDULERS
from .tensors import Array, DType, Range, Tensor

FACE_SIZE = 448
"""Side of the aligned face crop, pixels."""


# ---------------------------------------------------------------------------------------------------------------- widths
@dataclass(frozen=True)
class FaceViT:
    """Pre-norm vision transformer over the aligned face, ReLU6, no class token."""

    width: int
    depth: int
    heads: int
    classes: int
    image_size: int = 112
    patch_size: int = 9

    @property
    def grid(self) -> int:
        """Patches per side; the convolution drops the remainder."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        return self.grid**2


@dataclass(frozen=True)
class TextTower:
    """OpenCLIP text transformer. `activation`: "quick_gelu" or "gelu"."""

    width: int
    heads: int
    layers: int
    activation: str
    vocabulary: int = 49408
    max_tokens: int = 77


@dataclass(frozen=True)
class Fuser:
    """Rounds of face-text fusion; widths that do not follow the text tower's."""

    rounds: int = 6
    attention_width: int = 1024
    attention_heads: int = 4
    text_heads: int = 4
    text_ffn: int = 1024
    face_heads: int = 8
    face_points: int = 4
    face_ffn: int = 2048


@dataclass(frozen=True)
class SDXLArchitecture:
    """FaceCLIP-SDXL. `unet` and `vae` are diffusers' own config keys."""

    face: FaceViT
    towers: Mapping[str, TextTower]
    """State-dict prefix of a FaceCLIP branch -> its text tower, in the order of concatenation; the last one gives `pooled`."""
    fuser: Fuser
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]


# --------------------------------------------------------------------------------------------------------------- serving
@dataclass(frozen=True)
class Tokens:
    """How one tokenizer's ids are made from a prompt."""

    input: str
    """Name of the text encoder's input that takes these ids."""
    tokenizer: str
    """File beside the `prepare` model: a Hugging Face `tokenizer.json`."""
    max_tokens: int
    begin: int
    end: int
    padding: int
    face_prefix: str
    """Put before the prompt when a face is given."""
    identity_token: int
    """Id of the word that the face replaces."""
    identity_window: int = 7
    """Only ids in the first so many positions are replaced."""


@dataclass(frozen=True)
class Defaults:
    height: int
    width: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str = "EulerDiscreteScheduler"
    negative_prompt: str = (
        "nude, worst quality, low quality, normal quality, nsfw, abnormal, glasses, mutated, blurry, watermark"
    )


@dataclass(frozen=True)
class Limits:
    """Accepted ranges, both ends included."""

    size: tuple[int, int]
    """Height and width, pixels."""
    size_multiple: int = 8
    num_inference_steps: tuple[int, int] = (1, 200)
    guidance_scale: tuple[float, float] = (0.0, 20.0)
    num_images_per_prompt: int = 4
    faces: int = 4


@dataclass(frozen=True)
class Variant:
    name: str
    architecture: SDXLArchitecture
    weights: str
    """`checkpoint` (official files or a folder of the same layout) or `seeded` (deterministic stand-ins for tests)."""
    tokenizer_assets: str
    """Folder of export/assets with the BPE files; empty: the checkpoint brings them."""
    tokens: tuple[Tokens, ...]
    face_features: tuple[Tensor, ...]
    """What the face encoder hands to the text encoder."""
    conditioning: tuple[Tensor, ...]
    """What the text encoder hands to the denoiser, one row per (face, prompt) pair."""
    extras: tuple[Tensor, ...]
    """Further denoiser inputs, computed per request."""
    extras_for: Callable[[int, int], dict[str, Array]]
    """(height, width) in pixels -> the extras of one row, each [1, ...]."""
    latent_channels: int
    latent_scale: int
    """Pixels per latent cell, each way."""
    schedulers: tuple[str, ...]
    """diffusers classes that fit the denoiser's prediction."""
    scheduler_config: Mapping[str, Any]
    defaults: Defaults
    limits: Limits

    @property
    def identity(self) -> Tensor:
        """The face feature that says who it is: unit vectors, [faces, branches, classes]."""
        return self.face_features[0]

    @property
    def latent_range(self) -> Range:
        """Latent cells per side."""
        low, high = self.limits.size
        usual = max(self.defaults.height, self.defaults.width)
        return Range(low // self.latent_scale, usual // self.latent_scale, high // self.latent_scale)


# ---------------------------------------------------------------------------------------------------------------- SDXL
def sdxl_time_ids(height: int, width: int) -> dict[str, Array]:
    """SDXL's size micro-conditioning: original size, crop corner, target size."""
    return {"time_ids": np.array([[height, width, 0, 0, height, width]], np.float32)}


def _sdxl(
    name: str,
    architecture: SDXLArchitecture,
    weights: str,
    tokenizer_assets: str,
    tokens: Tokens,
    defaults: Defaults,
    limits: Limits,
) -> Variant:
    face, towers = architecture.face, list(architecture.towers.values())
    return Variant(
        name=name,
        architecture=architecture,
        weights=weights,
        tokenizer_assets=tokenizer_assets,
        tokens=(tokens,),
        face_features=(
            Tensor("class_token", DType.FP32, ("faces", len(towers), face.classes), "identity vector per branch, unit length"),
            Tensor("patch_token", DType.FP32, ("faces", len(towers), face.patches, face.width), "face patches per branch"),
        ),
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
        scheduler_config=SDXL_SCHEDULER,
        defaults=defaults,
        limits=limits,
    )


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

_SDXL_VAE: Mapping[str, Any] = {
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

SDXL = _sdxl(
    "sdxl",
    SDXLArchitecture(
        face=FaceViT(width=768, depth=24, heads=8, classes=512),
        towers={
            "face_clip_l": TextTower(width=768, heads=12, layers=12, activation="quick_gelu"),
            "face_clip_g": TextTower(width=1280, heads=20, layers=32, activation="gelu"),
        },
        fuser=Fuser(),
        unet=_SDXL_UNET,
        vae=_SDXL_VAE,
    ),
    weights="checkpoint",
    tokenizer_assets="",
    tokens=Tokens(
        input="input_ids",
        tokenizer="tokenizer.json",
        max_tokens=77,
        begin=49406,
        end=49407,
        padding=0,
        face_prefix="Photo of a id person. ",
        identity_token=1014,
    ),
    defaults=Defaults(height=1152, width=864, num_inference_steps=50, guidance_scale=5.0),
    limits=Limits(size=(256, 2048)),
)

_TINY_VOCABULARY = 926
"""Size of export/assets/tiny-tokenizer."""

TINY_SDXL = _sdxl(
    "tiny-sdxl",
    SDXLArchitecture(
        face=FaceViT(width=48, depth=2, heads=4, classes=32),
        towers={
            "face_clip_l": TextTower(64, heads=4, layers=2, activation="quick_gelu", vocabulary=_TINY_VOCABULARY),
            "face_clip_g": TextTower(96, heads=6, layers=3, activation="gelu", vocabulary=_TINY_VOCABULARY),
        },
        fuser=Fuser(),
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
        vae={**_SDXL_VAE, "block_out_channels": (16, 16, 32, 32), "norm_num_groups": 8, "sample_size": 128},
    ),
    weights="seeded",
    tokenizer_assets="tiny-tokenizer",
    tokens=Tokens(
        input="input_ids",
        tokenizer="tokenizer.json",
        max_tokens=77,
        begin=_TINY_VOCABULARY - 2,
        end=_TINY_VOCABULARY - 1,
        padding=0,
        face_prefix="Photo of a id person. ",
        identity_token=512,
    ),
    defaults=Defaults(height=192, width=128, num_inference_steps=8, guidance_scale=5.0),
    limits=Limits(size=(64, 512)),
)

VARIANTS: Mapping[str, Variant] = {variant.name: variant for variant in (SDXL, TINY_SDXL)}
