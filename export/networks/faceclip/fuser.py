"""The fuser: rounds in which face patches and text tokens read each other.

Knows the order within a round. What refines the faces between rounds is a module that the caller gives: any module that maps
(faces [rows, patches, width], positions) to the faces' shape.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from faceclip_serving.contract.variants import architectures

from .attention import PackedAttention, merge_heads, softmax_fp32, split_heads


class FaceTextFuser(nn.Module):
    """`fuser.*` of the checkpoint. `face_layer` builds the layer that refines the faces after each round's fusion."""

    def __init__(self, width: int, sizes: architectures.Fuser, face_layer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.encoder = _Rounds(width, sizes, face_layer)
        # Heads of the training; loaded, never used.
        self.enc_output = nn.Linear(width, width)
        self.enc_output_norm = nn.LayerNorm(width)

    def forward(self, faces: Tensor, text: Tensor, face_positions: Tensor, text_positions: Tensor) -> Tensor:
        """Faces [rows, patches, width], text [rows, tokens, width], positions that broadcast to them -> text, fused."""
        fused: Tensor = self.encoder(faces, text, face_positions, text_positions)
        return fused


class _Rounds(nn.Module):
    def __init__(self, width: int, sizes: architectures.Fuser, face_layer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(face_layer() for _ in range(sizes.rounds))
        self.text_layers = nn.ModuleList(PostNormLayer(width, sizes.text_heads, sizes.text_ffn) for _ in range(sizes.rounds))
        self.fusion_layers = nn.ModuleList(FusionLayer(width, sizes) for _ in range(sizes.rounds))

    def forward(self, faces: Tensor, text: Tensor, face_positions: Tensor, text_positions: Tensor) -> Tensor:
        last = len(self.fusion_layers) - 1
        for i, (fusion, text_layer, face_layer) in enumerate(
            zip(self.fusion_layers, self.text_layers, self.layers, strict=True)
        ):
            faces_go_on = i < last
            faces, text = fusion(faces, text, faces_go_on)
            text = text_layer(text, text_positions)
            if faces_go_on:
                faces = face_layer(faces, face_positions)
        return text


class FusionLayer(nn.Module):
    """Both sides read each other through one score matrix, and add what they read by a learned amount."""

    def __init__(self, width: int, sizes: architectures.Fuser) -> None:
        super().__init__()
        self.gamma_v = nn.Parameter(torch.empty(width))
        self.gamma_l = nn.Parameter(torch.empty(width))
        self.layer_norm_v = nn.LayerNorm(width)
        self.layer_norm_l = nn.LayerNorm(width)
        self.attn = _MutualAttention(width, sizes.attention_width, sizes.attention_heads)

    def forward(self, faces: Tensor, text: Tensor, faces_go_on: bool) -> tuple[Tensor, Tensor]:
        """Faces [rows, patches, width], text [rows, tokens, width] -> the same shapes.

        The sums start at the normalised values, not at the inputs. Without `faces_go_on` nobody reads the faces that are
        returned, and what they would read of the text is not computed.
        """
        faces, text = self.layer_norm_v(faces), self.layer_norm_l(text)
        scores = self.attn.scores(faces, text)
        fused_text = text + self.gamma_l * self.attn.for_text(scores, faces)
        if faces_go_on:
            faces = faces + self.gamma_v * self.attn.for_faces(scores, text)
        return faces, fused_text


class _MutualAttention(nn.Module):
    def __init__(self, width: int, attention_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.v_proj = nn.Linear(width, attention_width)
        self.l_proj = nn.Linear(width, attention_width)
        self.values_v_proj = nn.Linear(width, attention_width)
        self.values_l_proj = nn.Linear(width, attention_width)
        self.out_v_proj = nn.Linear(attention_width, width)
        self.out_l_proj = nn.Linear(attention_width, width)

    def scores(self, faces: Tensor, text: Tensor) -> Tensor:
        """How much each patch and each token have to do with each other: [rows, heads, patches, tokens]."""
        query = split_heads(self.v_proj(faces), self.heads)
        key = split_heads(self.l_proj(text), self.heads)
        products: Tensor = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return products

    def for_faces(self, scores: Tensor, text: Tensor) -> Tensor:
        """What each patch reads of the text: [rows, patches, width]."""
        read = softmax_fp32(scores) @ split_heads(self.values_l_proj(text), self.heads)
        merged: Tensor = self.out_v_proj(merge_heads(read))
        return merged

    def for_text(self, scores: Tensor, faces: Tensor) -> Tensor:
        """What each token reads of the face: [rows, tokens, width]."""
        read = softmax_fp32(scores.transpose(-1, -2)) @ split_heads(self.values_v_proj(faces), self.heads)
        merged: Tensor = self.out_l_proj(merge_heads(read))
        return merged


class PostNormLayer(nn.Module):
    """Transformer layer with the norms after the sums; ReLU, no mask."""

    def __init__(self, width: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.self_attn = PackedAttention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, ffn)
        self.linear2 = nn.Linear(ffn, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """[rows, tokens, width] and positions that broadcast to it -> the same shape."""
        tokens = self.norm1(tokens + self.self_attn(tokens, positions))
        merged: Tensor = self.norm2(tokens + self.linear2(functional.relu(self.linear1(tokens))))
        return merged
