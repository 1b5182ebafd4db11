"""The face encoder: a pre-norm vision transformer over the aligned face crop.

Knows the published layer names and the resize that precedes the patches. How the crop was made is not known here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from faceclip_serving.contract.variants import architectures

from .attention import attend

_MLP_RATIO = 4
_LAYER_NORM_EPS = 1e-5
_BATCH_NORM_EPS = 2e-5


class FaceTransformer(nn.Module):
    """`face_encoder.*` of the checkpoint."""

    def __init__(self, sizes: architectures.FaceViT) -> None:
        super().__init__()
        width = sizes.width
        self.image_size = sizes.image_size
        self.pos_embed = nn.Parameter(torch.empty(1, sizes.patches, width))
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))  # of pre-training; loaded, never used
        self.patch_embed = _PatchEmbedding(width, sizes.patch_size)
        self.blocks = nn.ModuleList(_Block(width, sizes.heads) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.feature = nn.Sequential(
            nn.Linear(sizes.patches * width, width, bias=False),
            nn.BatchNorm1d(width, eps=_BATCH_NORM_EPS),
            nn.Linear(width, sizes.classes, bias=False),
            nn.BatchNorm1d(sizes.classes, eps=_BATCH_NORM_EPS),
        )

    def forward(self, aligned_faces: Tensor) -> tuple[Tensor, Tensor]:
        """Aligned faces [faces, 3, height, width], RGB in [0, 1] -> class_token and patch_token.

        class_token [faces, classes], not normalised yet; patch_token [faces, patches, width].
        """
        # The published network was fed by a plain bilinear resize; antialiasing would change every number.
        size = (self.image_size, self.image_size)
        image = functional.interpolate(aligned_faces, size=size, mode="bilinear", align_corners=False, antialias=False)
        tokens: Tensor = self.patch_embed(image) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        patch_token: Tensor = self.norm(tokens)
        class_token: Tensor = self.feature(patch_token.flatten(1))
        return class_token, patch_token


class _PatchEmbedding(nn.Module):
    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, image: Tensor) -> Tensor:
        """[faces, 3, size, size] -> [faces, patches, width], row by row; pixels beyond the last whole patch are dropped."""
        patches: Tensor = self.proj(image)
        return patches.flatten(2).transpose(1, 2)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.mlp = _MLP(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        merged: Tensor = self.proj(attend(query, key, value, self.heads))
        return merged


class _MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, _MLP_RATIO * width)
        self.fc2 = nn.Linear(_MLP_RATIO * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        merged: Tensor = self.fc2(functional.relu6(self.fc1(tokens)))
        return merged
