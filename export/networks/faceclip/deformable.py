"""The face layer of FaceCLIP's fuser: each patch reads a few learned places of the patch grid.

Knows one level of a square grid. Sampling is bilinear with zeros outside, which ONNX's GridSample expresses.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .attention import softmax_fp32, unflatten


class DeformableLayer(nn.Module):
    """Post-norm layer: deformable attention over `grid` x `grid` patches, then a feed-forward network with ReLU."""

    def __init__(self, width: int, heads: int, points: int, ffn: int, grid: int) -> None:
        super().__init__()
        self.self_attn = _DeformableAttention(width, heads, points, grid)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, ffn)
        self.linear2 = nn.Linear(ffn, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, faces: Tensor, positions: Tensor) -> Tensor:
        """[rows, patches, width] and positions that broadcast to it -> the same shape."""
        faces = self.norm1(faces + self.self_attn(faces + positions, faces))
        merged: Tensor = self.norm2(faces + self.linear2(functional.relu(self.linear1(faces))))
        return merged


class _DeformableAttention(nn.Module):
    def __init__(self, width: int, heads: int, points: int, grid: int) -> None:
        super().__init__()
        self.heads, self.points, self.grid = heads, points, grid
        self.sampling_offsets = nn.Linear(width, heads * points * 2)
        self.attention_weights = nn.Linear(width, heads * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)

    def forward(self, query: Tensor, value: Tensor) -> Tensor:
        """Query and value [rows, patches, width] -> [rows, patches, width]."""
        heads, points, grid = self.heads, self.points, self.grid
        # One picture per row and head: [rows * heads, head width, grid, grid].
        channels = unflatten(self.value_proj(value).transpose(1, 2), 1, (heads, -1)).flatten(0, 1)
        pictures = unflatten(channels, -1, (grid, grid))
        offsets = unflatten(self.sampling_offsets(query), -1, (heads, points, 2))  # x, y in patches
        centres = _patch_centres(grid, query)[:, None, None, :]
        # Units of half the grid around its middle, as GridSample counts: -1 and 1 are the outer edges.
        places = 2.0 * (centres + offsets / grid) - 1.0
        places = places.permute(0, 2, 1, 3, 4).flatten(0, 1)  # [rows * heads, patches, points, 2]
        samples = functional.grid_sample(pictures, places, mode="bilinear", padding_mode="zeros", align_corners=False)
        weights = softmax_fp32(unflatten(self.attention_weights(query), -1, (heads, points)))
        weights = weights.transpose(1, 2).flatten(0, 1).unsqueeze(1)  # [rows * heads, 1, patches, points]
        read = (samples * weights).sum(-1)  # [rows * heads, head width, patches]
        merged: Tensor = self.output_proj(unflatten(read, 0, (-1, heads)).flatten(1, 2).transpose(1, 2))
        return merged


def _patch_centres(grid: int, like: Tensor) -> Tensor:
    """Centres (x, y) of the patches, row by row, in [0, 1]: [patches, 2]."""
    line = (torch.arange(grid, dtype=like.dtype, device=like.device) + 0.5) / grid
    y, x = line.repeat_interleave(grid), line.repeat(grid)
    return torch.stack((x, y), dim=-1)
