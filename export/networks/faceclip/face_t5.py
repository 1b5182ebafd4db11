"""The FaceT5 encoder: T5's text fused with a face, and CLIP's pooled row of the same prompt.

Knows how rows find their faces; a row without a face is fused with the features of an all-zero image, which come in from the
caller, who computes them once. No word of the prompt stands for the face here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from faceclip_serving.contract.variants import architectures

from .attention import unit_length
from .face_t5_pooled import PooledText
from .face_t5_text import T5Encoder
from .face_vit import FaceTransformer
from .fuser import FaceTextFuser


class FaceT5Encoder(nn.Module):
    """`model/face_t5_encoder.pt`. Built for inference: evaluation mode, no gradients."""

    def __init__(self, architecture: architectures.FluxArchitecture) -> None:
        super().__init__()
        self.encoder_1 = PooledText(architecture.pooled)
        self.encoder_2 = FaceT5(architecture.text, architecture.face, architecture.fuser)
        self.requires_grad_(False).eval()

    def encode_rows(
        self, pooled_ids: Tensor, input_ids: Tensor, face_index: Tensor, patch_token: Tensor, no_face_patch_token: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Prompts, each with the face it names -> embeddings [rows, tokens, width], pooled [rows, pooled width].

        pooled_ids int64 [rows, CLIP tokens], input_ids int64 [rows, T5 tokens]; face_index int64 [rows, 1], -1: no face;
        patch_token [faces, patches, width] of `face_features`; no_face_patch_token [1, patches, width] of one all-zero image.
        """
        chosen = face_index.squeeze(1) + 1  # row 0 of the joined features is "no face"
        row_patches = torch.cat((no_face_patch_token, patch_token)).index_select(0, chosen)
        return self.encoder_2(input_ids, row_patches), self.encoder_1(pooled_ids)

    def forward(
        self, aligned_faces: Tensor, face_exist: Tensor, pooled_ids: Tensor, input_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The reference form, one image per row: (embeddings, pooled) as `encode_rows`.

        aligned_faces [rows, 3, height, width], RGB in [0, 1]; face_exist bool [rows]: where false the image counts as all zeros.
        """
        _, patch_token = face_features(self.encoder_2.face_encoder, aligned_faces)
        _, no_face = face_features(self.encoder_2.face_encoder, torch.zeros_like(aligned_faces[:1]))
        rows = torch.arange(aligned_faces.shape[0], device=aligned_faces.device)
        face_index = torch.where(face_exist, rows, -1).unsqueeze(1)
        return self.encode_rows(pooled_ids, input_ids, face_index, patch_token, no_face)


def face_features(face_encoder: FaceTransformer, aligned_faces: Tensor) -> tuple[Tensor, Tensor]:
    """Aligned faces [faces, 3, height, width], RGB in [0, 1] -> class_token and patch_token.

    class_token [faces, 1, classes], unit length, says who it is; patch_token [faces, patches, width] is what texts are fused with.
    """
    class_token, patch_token = face_encoder(aligned_faces)
    return unit_length(class_token).unsqueeze(1), patch_token


class FaceT5(nn.Module):
    """`encoder_2.*` of the checkpoint."""

    positional_embedding: Tensor

    def __init__(self, text: architectures.T5Tower, face: architectures.FaceViT, fuser: architectures.Fuser) -> None:
        super().__init__()
        self.register_buffer("positional_embedding", torch.empty(1, text.max_tokens, text.width))
        self.face_encoder = FaceTransformer(face)
        self.t5_encoder = T5Encoder(text)
        self.face_patch_proj = nn.Linear(face.width, text.width)
        self.face_pos_proj = nn.Linear(face.width, text.width)  # loaded, never read: see `PatchLayer`
        self.fuser = FaceTextFuser(text.width, fuser, lambda: PatchLayer(text.width, fuser.face_ffn))

    def forward(self, input_ids: Tensor, patch_token: Tensor) -> Tensor:
        """input_ids int64 [rows, tokens], patch_token [rows, patches, face width] -> fused text [rows, tokens, width]."""
        return self.fuse(self.t5_encoder(input_ids), patch_token)

    def fuse(self, text: Tensor, patch_token: Tensor) -> Tensor:
        """text [rows, tokens, width] of T5, patch_token [rows, patches, face width] -> fused text."""
        faces = self.face_patch_proj(patch_token)
        fused: Tensor = self.fuser(faces, text, torch.zeros_like(faces[:, :1]), self.positional_embedding)
        return fused


class PatchLayer(nn.Module):
    """What refines the faces after each round of FaceT5's fuser, for one picture.

    The checkpoint's layer is a post-norm transformer layer whose attention was built for [tokens, rows, width] but was given
    [rows, tokens, width]: each patch attends to the same patch of the other rows, and no positions are added. With the one row
    that makes one picture, the softmax is over one element, so attention is its value: `out_proj` of the value projection.
    That is computed here for every row, so that rows stay independent of their neighbours. Query and key projections are
    loaded and never read.
    """

    def __init__(self, width: int, ffn: int) -> None:
        super().__init__()
        self.self_attn = _ValueOfOne(width)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, ffn)
        self.linear2 = nn.Linear(ffn, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, faces: Tensor, _positions: Tensor) -> Tensor:
        """[rows, patches, width] -> the same shape."""
        faces = self.norm1(faces + self.self_attn(faces))
        merged: Tensor = self.norm2(faces + self.linear2(functional.relu(self.linear1(faces))))
        return merged


class _ValueOfOne(nn.Module):
    """Attention, under the names of torch's MultiheadAttention, over a single element."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        width = tokens.shape[-1]
        value = functional.linear(tokens, self.in_proj_weight[2 * width :], self.in_proj_bias[2 * width :])
        merged: Tensor = self.out_proj(value)
        return merged
