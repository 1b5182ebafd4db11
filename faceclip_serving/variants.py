"""The models that can be served, as data. A variant is a value: no code compares its name or its family.

`Architecture` values hold the widths that `export` builds networks from; everything else of a `Variant` is what the server
needs: its tensors, its token ids, its defaults and limits. Sources: arXiv 2504.14202 and the published inference settings
for the sizes, SDXL-base's and FLUX.1-dev's published configs for denoiser, VAE and scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .schedules import EPSILON_SCHEDULERS, FLOW_SCHEDULERS, SetTimesteps, shifted_by_size, spaced_by_scheduler
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
class T5Tower:
    """Encoder of T5 v1.1: RMS norms, gated GELU, relative positions in `buckets` classes."""

    width: int
    ffn: int
    heads: int
    head_width: int
    layers: int
    vocabulary: int = 32128
    max_tokens: int = 512
    buckets: int = 32
    max_distance: int = 128


@dataclass(frozen=True)
class SDXLArchitecture:
    """FaceCLIP-SDXL. `unet` and `vae` are diffusers' own config keys."""

    face: FaceViT
    towers: Mapping[str, TextTower]
    """State-dict prefix of a FaceCLIP branch -> its text tower, in the order of concatenation; the last one gives `pooled`."""
    fuser: Fuser
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]


@dataclass(frozen=True)
class FluxArchitecture:
    """FaceT5-FLUX. `transformer` and `vae` are diffusers' own config keys."""

    face: FaceViT
    text: T5Tower
    pooled: TextTower
    """CLIP's text model, of which only the pooled row is used."""
    fuser: Fuser
    transformer: Mapping[str, Any]
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
    begin: int | None
    """None: texts begin with their first word."""
    end: int
    padding: int
    face_prefix: str = ""
    """Put before the prompt when a face is given."""
    identity_token: int | None = None
    """Id of the word that the face replaces; None: faces replace no word."""
    identity_window: int = 7
    """Only ids in the first so many positions are replaced."""
    source: str = "tokenizer"
    """Folder of the tokenizer's files: in the checkpoint, or in export/assets where the variant has no checkpoint."""
    words: tuple[int, int] | None = None
    """Smallest and largest id of a word; None: from 1 until the begin and end tokens, as CLIP numbers them."""


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
    architecture: SDXLArchitecture | FluxArchitecture
    weights: str
    """`checkpoint` (official files or a folder of the same layout) or `seeded` (deterministic stand-ins for tests)."""
    tokens: tuple[Tokens, ...]
    face_features: tuple[Tensor, ...]
    """What the face encoder finds; the first says who it is."""
    fused_features: tuple[Tensor, ...]
    """Those of them that the text encoder reads."""
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
    timesteps_for: SetTimesteps
    """What a scheduler is told to make its timesteps from."""
    defaults: Defaults
    limits: Limits

    @property
    def latent_multiple(self) -> int:
        """Latent cells per side come in multiples of this."""
        return max(1, self.limits.size_multiple // self.latent_scale)

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
    tokens: Tokens,
    defaults: Defaults,
    limits: Limits,
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
        scheduler_config=SDXL_SCHEDULER,
        timesteps_for=spaced_by_scheduler,
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
    tokens=Tokens(
        input="input_ids",
        tokenizer="tokenizer.json",
        source="tiny-tokenizer",
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


# ----------------------------------------------------------------------------------------------------------------- FLUX
DISTILLED_GUIDANCE = 1.0
"""FLUX.1-dev's guidance input. The published pipeline keeps it at 1 and guides by a negative prompt, as SDXL is guided."""


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
        defaults=defaults,
        limits=limits,
    )


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
    **_SDXL_VAE,
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}

FLUX = _flux(
    "flux",
    FluxArchitecture(
        face=FaceViT(width=768, depth=24, heads=8, classes=512),
        text=T5Tower(width=4096, ffn=10240, heads=64, head_width=64, layers=24),
        pooled=TextTower(width=768, heads=12, layers=12, activation="quick_gelu"),
        fuser=Fuser(),
        transformer=_FLUX_TRANSFORMER,
        vae=_FLUX_VAE,
    ),
    weights="checkpoint",
    pooled_tokens=Tokens(
        input="pooled_ids",
        tokenizer="pooled_tokenizer.json",
        source="flux/tokenizer",
        max_tokens=77,
        begin=49406,
        end=49407,
        padding=49407,
    ),
    text_tokens=Tokens(
        input="input_ids",
        tokenizer="tokenizer.json",
        source="flux/tokenizer_2",
        max_tokens=512,
        begin=None,
        end=1,
        padding=0,
        words=(3, 32099),
    ),
    defaults=Defaults(
        height=1152, width=864, num_inference_steps=50, guidance_scale=3.5, scheduler="FlowMatchEulerDiscreteScheduler"
    ),
    limits=Limits(size=(256, 2048), size_multiple=16),
)

_TINY_T5_VOCABULARY = 384
"""Size of export/assets/tiny-t5-tokenizer."""

TINY_FLUX = _flux(
    "tiny-flux",
    FluxArchitecture(
        face=FaceViT(width=48, depth=2, heads=4, classes=32),
        text=T5Tower(width=64, ffn=128, heads=4, head_width=16, layers=2, vocabulary=_TINY_T5_VOCABULARY, max_tokens=128),
        pooled=TextTower(48, heads=4, layers=2, activation="quick_gelu", vocabulary=_TINY_VOCABULARY),
        fuser=Fuser(),
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
    weights="seeded",
    pooled_tokens=Tokens(
        input="pooled_ids",
        tokenizer="pooled_tokenizer.json",
        source="tiny-tokenizer",
        max_tokens=77,
        begin=_TINY_VOCABULARY - 2,
        end=_TINY_VOCABULARY - 1,
        padding=_TINY_VOCABULARY - 1,
    ),
    text_tokens=Tokens(
        input="input_ids",
        tokenizer="tokenizer.json",
        source="tiny-t5-tokenizer",
        max_tokens=128,
        begin=None,
        end=1,
        padding=0,
        words=(3, _TINY_T5_VOCABULARY - 1),
    ),
    defaults=Defaults(
        height=192, width=128, num_inference_steps=8, guidance_scale=3.5, scheduler="FlowMatchEulerDiscreteScheduler"
    ),
    limits=Limits(size=(64, 512), size_multiple=16),
)

VARIANTS: Mapping[str, Variant] = {variant.name: variant for variant in (SDXL, TINY_SDXL, FLUX, TINY_FLUX)}
