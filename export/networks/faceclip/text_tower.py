"""OpenCLIP's text transformer: pre-norm blocks under a causal mask.

Knows the published layer names. Token embeddings, positions and the final norm belong to the branch that owns the transformer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from faceclip_serving.contract.variants import architectures

from .attention import PackedAttention

MASKED = -1e4
"""Added to the score of a later token. Finite, so that no precision or fused kernel makes it NaN; its exponential is 0."""


def quick_gelu(tokens: Tensor) -> Tensor:
    """OpenAI CLIP's approximation of GELU."""
    return tokens * torch.sigmoid(1.702 * tokens)


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": functional.gelu}
"""`TextTower.activation` -> function."""


class TextTransformer(nn.Module):
    """`transformer.*` of a branch."""

    def __init__(self, sizes: architectures.TextTower) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(sizes) for _ in range(sizes.layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """[rows, tokens, width] -> the same shape; a token sees itself and those before it."""
        length = tokens.shape[1]
        mask = torch.full((length, length), MASKED, dtype=tokens.dtype, device=tokens.device).triu(1)
        for block in self.resblocks:
            tokens = block(tokens, mask)
        return tokens


class _Block(nn.Module):
    def __init__(self, sizes: architectures.TextTower) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(sizes.width)
        self.attn = PackedAttention(sizes.width, sizes.heads)
        self.ln_2 = nn.LayerNorm(sizes.width)
        self.mlp = _MLP(sizes.width, ACTIVATIONS[sizes.activation])

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.ln_1(tokens), mask=mask)
        tokens = tokens + self.mlp(self.ln_2(tokens))
        return tokens


class _MLP(nn.Module):
    def __init__(self, width: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        merged: Tensor = self.c_proj(self.activation(self.c_fc(tokens)))
        return merged
