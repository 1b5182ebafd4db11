"""Attention and the arithmetic that stays in float32 whatever the precision of the matrices.

Knows how heads are split and how OpenCLIP packs its projections; knows nothing of faces, texts or checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def softmax_fp32(scores: Tensor) -> Tensor:
    """Softmax over the last axis, computed in float32: half precision loses the small weights that add up over long rows."""
    return torch.softmax(scores.float(), dim=-1).to(scores.dtype)


def unit_length(vectors: Tensor) -> Tensor:
    """Vectors [..., width] divided by their L2 norm, computed in float32: a sum of squares overflows half precision early."""
    wide = vectors.float()
    length: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    return (wide / length).to(vectors.dtype)


def unflatten(tensor: Tensor, dim: int, sizes: tuple[int, ...]) -> Tensor:
    """`Tensor.unflatten`, which torch leaves untyped."""
    split: Tensor = tensor.unflatten(dim, sizes)  # type: ignore[no-untyped-call]
    return split


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """[batch, tokens, width] -> [batch, heads, tokens, width / heads]."""
    return unflatten(tokens, -1, (heads, -1)).transpose(1, 2)


def merge_heads(tokens: Tensor) -> Tensor:
    """[batch, heads, tokens, head width] -> [batch, tokens, heads * head width]."""
    return tokens.transpose(1, 2).flatten(2)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention over projected tokens [batch, tokens, width]; `mask` [tokens, tokens] is added to the scores."""
    query, key, value = (split_heads(tokens, heads) for tokens in (query, key, value))
    # The scale goes on the query, not on the product, so that scores never leave the range of half precision.
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    return merge_heads(softmax_fp32(scores) @ value)


class PackedAttention(nn.Module):
    """Self-attention whose query, key and value matrices lie in one parameter, as torch's MultiheadAttention names them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, positions: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Tokens [batch, tokens, width] -> the same shape. `positions` are added for query and key, never for the value."""
        query, key, value = functional.linear(tokens, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        if positions is not None:
            # The projection is linear, so positions are projected apart: a constant of the graph, and no matrix is cut.
            for_query, for_key, _ = functional.linear(positions, self.in_proj_weight).chunk(3, dim=-1)
            query, key = query + for_query, key + for_key
        merged: Tensor = self.out_proj(attend(query, key, value, self.heads, mask))
        return merged
