"""T5's encoder under the names of FaceT5's checkpoint: `t5_encoder.*`.

Knows the layers of T5 v1.1 (RMS norms, attention without scale, one table of relative positions for all layers, gated GELU). All
tokens see all tokens: the published network was run without a mask over its padding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from faceclip_serving.contract.variants import architectures

from .attention import merge_heads, softmax_fp32, split_heads

_NORM_EPS = 1e-6


class T5Encoder(nn.Module):
    """Token ids int64 [rows, tokens] -> text [rows, tokens, width] after the final norm."""

    def __init__(self, sizes: architectures.T5Tower) -> None:
        super().__init__()
        self.sizes = sizes
        self.embed_tokens = nn.Embedding(sizes.vocabulary, sizes.width)
        self.block = nn.ModuleList(_Block(sizes, has_positions=i == 0) for i in range(sizes.layers))
        self.final_layer_norm = nn.RMSNorm(sizes.width, eps=_NORM_EPS)

    def forward(self, input_ids: Tensor) -> Tensor:
        # The sums of 24 blocks leave half's range: they are kept in FP32, in which the norms read them.
        tokens = self.embed_tokens(input_ids).float()
        bias = self._position_bias(input_ids.shape[1], input_ids.device)
        for block in self.block:
            tokens = block(tokens, bias)
        text: Tensor = self.final_layer_norm(tokens)
        return text

    def _position_bias(self, length: int, device: torch.device) -> Tensor:
        """What every layer adds to the scores [heads, tokens, tokens]: by how far the read token stands from the reader."""
        distances = range(1 - length, length)
        buckets = torch.tensor([_bucket(d, self.sizes.buckets, self.sizes.max_distance) for d in distances], device=device)
        line = torch.arange(length, device=device)
        first = self.get_submodule("block.0.self_attention_layer.self_attention.pe_encoding.relative_attention_bias")
        by_distance: Tensor = first(buckets)
        bias = by_distance[line[None, :] - line[:, None] + length - 1]
        return bias.permute(2, 0, 1)


def _bucket(distance: int, buckets: int, max_distance: int) -> int:
    """T5's class of a distance (read token's place minus the reader's): exact when near, logarithmic when far, per direction."""
    half = buckets // 2
    exact = half // 2
    later = half if distance > 0 else 0
    steps = abs(distance)
    if steps < exact:
        return later + steps
    far = exact + int(math.log(steps / exact) / math.log(max_distance / exact) * (half - exact))
    return later + min(far, half - 1)


class _Block(nn.Module):
    def __init__(self, sizes: architectures.T5Tower, has_positions: bool) -> None:
        super().__init__()
        self.self_attention_layer = _AttentionLayer(sizes, has_positions)
        self.ff_layer = _FeedForwardLayer(sizes)

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        tokens = tokens + self.self_attention_layer(tokens, bias)
        tokens = tokens + self.ff_layer(tokens)
        return tokens


class _AttentionLayer(nn.Module):
    def __init__(self, sizes: architectures.T5Tower, has_positions: bool) -> None:
        super().__init__()
        self.layer_norm = nn.RMSNorm(sizes.width, eps=_NORM_EPS)
        self.self_attention = _Attention(sizes, has_positions)

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        read: Tensor = self.self_attention(self.layer_norm(tokens), bias)
        return read


class _Attention(nn.Module):
    def __init__(self, sizes: architectures.T5Tower, has_positions: bool) -> None:
        super().__init__()
        self.heads = sizes.heads
        inner = sizes.heads * sizes.head_width
        self.Wq = nn.Linear(sizes.width, inner, bias=False)
        self.Wk = nn.Linear(sizes.width, inner, bias=False)
        self.Wv = nn.Linear(sizes.width, inner, bias=False)
        self.o = nn.Linear(inner, sizes.width, bias=False)
        if has_positions:
            self.pe_encoding = _RelativePositions(sizes)

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (split_heads(project(tokens), self.heads) for project in (self.Wq, self.Wk, self.Wv))
        merged: Tensor = self.o(merge_heads(softmax_fp32(query @ key.transpose(-1, -2) + bias) @ value))
        return merged


class _RelativePositions(nn.Module):
    def __init__(self, sizes: architectures.T5Tower) -> None:
        super().__init__()
        self.relative_attention_bias = nn.Embedding(sizes.buckets, sizes.heads)


class _FeedForwardLayer(nn.Module):
    def __init__(self, sizes: architectures.T5Tower) -> None:
        super().__init__()
        self.layer_norm = nn.RMSNorm(sizes.width, eps=_NORM_EPS)
        self.act = _GatedGelu(sizes)
        self.wo = nn.Linear(sizes.ffn, sizes.width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.wo(self.act(self.layer_norm(tokens)))
        return result


class _GatedGelu(nn.Module):
    def __init__(self, sizes: architectures.T5Tower) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(sizes.width, sizes.ffn, bias=False)
        self.wi_1 = nn.Linear(sizes.width, sizes.ffn, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        # Each factor fits half precision, their product does not always.
        gate = functional.gelu(self.wi_0(tokens), approximate="tanh").float()
        gated: Tensor = gate * self.wi_1(tokens).float()
        return gated
