"""The widths that `export` builds networks from. Sources: arXiv 2504.14202, SDXL-base's and FLUX.1-dev's published configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FACE_SIZE = 448
"""Side of the aligned face crop, pixels."""


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
