"""The adapter-style peer, as IP-Adapter (arXiv 2308.06721) and InstantID (2401.07519) are made: tokens of the face beside the text's,
read by attention of their own in a denoiser that learnt text alone and stays as it is.

Rows hold the text's tokens and then `ADAPTER_TOKENS` of the face. The stage `base` has the same tokens without `decouple`: there
one attention reads both, and the denoiser learns along.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, IPAdapterAttnProcessor2_0
from torch import Tensor, nn

from faceclip_serving.contract.variants.architectures import FaceViT

ADAPTER_TOKENS = 8


class FaceTokens(nn.Module):
    """`ADAPTER_TOKENS` learned queries read the patches, and the identity vector is added to each."""

    def __init__(self, face: FaceViT, width: int, heads: int = 4) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, ADAPTER_TOKENS, width) * 0.1)
        self.of_class = nn.Linear(face.classes, ADAPTER_TOKENS * width)
        self.of_patches = nn.Linear(face.width, width)
        self.positions = nn.Parameter(torch.randn(1, face.patches, width) * 0.02)
        self.read = nn.MultiheadAttention(width, heads, batch_first=True)
        self.refine = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.norm = nn.LayerNorm(width)
        self.nobody = nn.Parameter(torch.randn(1, ADAPTER_TOKENS, width) * 0.1)

    def forward(self, classes: Tensor, patches: Tensor, has_face: Tensor) -> Tensor:
        """classes [n, classes], patches [n, patches, width], has_face bool [n] -> [n, ADAPTER_TOKENS, width]."""
        memory = self.of_patches(patches) + self.positions
        tokens = self.queries + self.of_class(classes).view(len(classes), ADAPTER_TOKENS, -1)
        tokens = tokens + self.read(tokens, memory, memory, need_weights=False)[0]
        tokens = self.norm(tokens + self.refine(tokens))
        return torch.where(has_face[:, None, None], tokens, self.nobody)


class DecoupledAttention(IPAdapterAttnProcessor2_0):  # type: ignore[misc]
    """Cross-attention to the text as it was, plus one to the face's tokens with keys and values of its own."""

    def __init__(self, attention: Attention) -> None:
        super().__init__(attention.inner_dim, attention.cross_attention_dim, num_tokens=(ADAPTER_TOKENS,))
        self.to_k_ip[0].load_state_dict(attention.to_k.state_dict())
        self.to_v_ip[0].load_state_dict(attention.to_v.state_dict())

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **others: Any) -> Tensor:
        text, face = encoder_hidden_states[:, :-ADAPTER_TOKENS], encoder_hidden_states[:, -ADAPTER_TOKENS:]
        attended: Tensor = super().__call__(attn, hidden_states, (text, [face]), **others)
        return attended


def decouple(unet: UNet2DConditionModel) -> nn.ModuleDict:
    """Freezes the denoiser and gives every cross-attention its `DecoupledAttention`; returns these, by the layer's name.

    They start from the keys and values of the text, as IP-Adapter's training does.
    """
    unet.requires_grad_(False)
    added = {}
    for name, module in unet.named_modules():
        if isinstance(module, Attention) and module.is_cross_attention:
            added[name.replace(".", "/")] = DecoupledAttention(module)
            module.set_processor(added[name.replace(".", "/")])
    return nn.ModuleDict(added)


class Adapter(nn.Module):
    """All that the peer adds to a denoiser, which it changes as `decouple` does."""

    def __init__(self, unet: UNet2DConditionModel, face: FaceViT, width: int) -> None:
        super().__init__()
        self.tokens, self.attention = FaceTokens(face, width), decouple(unet)
