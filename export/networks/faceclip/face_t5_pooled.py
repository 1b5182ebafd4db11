"""CLIP's text model under transformers' names, for its pooled row: `encoder_1.*` of FaceT5's checkpoint.

Knows pre-norm blocks with separate projections under a causal mask; everything but the names is as in the other text towers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from faceclip_serving.contract.variants import architectures

from .attention import attend
from .text_tower import ACTIVATIONS, MASKED


class PooledText(nn.Module):
    """Token ids int64 [rows, tokens] -> pooled [rows, width]: the row at the first end token, after the final norm."""

    def __init__(self, sizes: architectures.TextTower) -> None:
        super().__init__()
        self.text_model = _TextModel(sizes)

    def forward(self, input_ids: Tensor) -> Tensor:
        text = self.text_model(input_ids)
        # The end token has the vocabulary's largest id, and padding may repeat it: argmax finds the first.
        end = input_ids.to(torch.int32).argmax(dim=1, keepdim=True).unsqueeze(-1).expand(-1, -1, text.shape[-1])
        pooled: Tensor = text.gather(1, end).squeeze(1)
        return pooled


class _TextModel(nn.Module):
    def __init__(self, sizes: architectures.TextTower) -> None:
        super().__init__()
        self.embeddings = _Embeddings(sizes)
        self.encoder = _Blocks(sizes)
        self.final_layer_norm = nn.LayerNorm(sizes.width)

    def forward(self, input_ids: Tensor) -> Tensor:
        text: Tensor = self.final_layer_norm(self.encoder(self.embeddings(input_ids)))
        return text


class _Embeddings(nn.Module):
    def __init__(self, sizes: architectures.TextTower) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(sizes.vocabulary, sizes.width)
        self.position_embedding = nn.Embedding(sizes.max_tokens, sizes.width)

    def forward(self, input_ids: Tensor) -> Tensor:
        tokens: Tensor = self.token_embedding(input_ids) + self.position_embedding.weight[: input_ids.shape[1]]
        return tokens


class _Blocks(nn.Module):
    def __init__(self, sizes: architectures.TextTower) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Block(sizes) for _ in range(sizes.layers))

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = torch.full((length, length), MASKED, dtype=tokens.dtype, device=tokens.device).triu(1)
        for layer in self.layers:
            tokens = layer(tokens, mask)
        return tokens


class _Block(nn.Module):
    def __init__(self, sizes: architectures.TextTower) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(sizes.width)
        self.self_attn = _Attention(sizes)
        self.layer_norm2 = nn.LayerNorm(sizes.width)
        self.mlp = _MLP(sizes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        tokens = tokens + self.self_attn(self.layer_norm1(tokens), mask)
        tokens = tokens + self.mlp(self.layer_norm2(tokens))
        return tokens


class _Attention(nn.Module):
    def __init__(self, sizes: architectures.TextTower) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(sizes.width, sizes.width) for _ in range(4))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        read = attend(self.q_proj(tokens), self.k_proj(tokens), self.v_proj(tokens), self.heads, mask)
        merged: Tensor = self.out_proj(read)
        return merged


class _MLP(nn.Module):
    def __init__(self, sizes: architectures.TextTower) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[sizes.activation]
        self.fc1 = nn.Linear(sizes.width, 4 * sizes.width)
        self.fc2 = nn.Linear(4 * sizes.width, sizes.width)

    def forward(self, tokens: Tensor) -> Tensor:
        merged: Tensor = self.fc2(self.activation(self.fc1(tokens)))
        return merged
