"""One FaceCLIP branch: a text tower, a face encoder, and the fuser between them.

Knows where the identity token goes and what counts as the pooled row. Which face belongs to which row is the encoder's affair.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from faceclip_serving.contract.variants import architectures
from faceclip_serving.contract.variants.variant import Tokens

from .deformable import DeformableLayer
from .face_vit import FaceTransformer
from .fuser import FaceTextFuser
from .text_tower import TextTransformer


class FaceCLIPBranch(nn.Module):
    """`face_clip_l.*` or `face_clip_g.*` of the checkpoint."""

    def __init__(
        self, tower: architectures.TextTower, face: architectures.FaceViT, fuser: architectures.Fuser, tokens: Tokens
    ) -> None:
        super().__init__()
        width = tower.width
        self.identity_token, self.identity_window = tokens.identity_token, tokens.identity_window
        self.positional_embedding = nn.Parameter(torch.empty(tower.max_tokens, width))
        # Of the contrastive training; loaded, never used.
        self.text_projection = nn.Parameter(torch.empty(width, width))
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.logit_bias = nn.Parameter(torch.empty(()))

        self.token_embedding = nn.Embedding(tower.vocabulary, width)
        self.transformer = TextTransformer(tower)
        self.ln_final = nn.LayerNorm(width)
        self.face_encoder = FaceTransformer(face)
        self.proj1 = nn.Linear(face.classes, width)
        self.face_patch_proj = nn.Linear(face.width, width)
        self.face_pos_proj = nn.Linear(face.width, width)
        self.text_embed_proj = nn.Linear(width, width)
        self.text_pos_proj = nn.Linear(width, width)
        self.fuser = FaceTextFuser(
            width, fuser, lambda: DeformableLayer(width, fuser.face_heads, fuser.face_points, fuser.face_ffn, face.grid)
        )

    def forward(self, input_ids: Tensor, has_face: Tensor, class_token: Tensor, patch_token: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts and the features of their faces -> fused [rows, tokens, width], pooled [rows, width].

        input_ids int64 [rows, tokens]; has_face bool [rows, 1]; class_token [rows, classes], unit length; patch_token
        [rows, patches, face width].
        """
        text, pooled = self.encode_text(input_ids, has_face, class_token)
        fused: Tensor = self.fuser(
            self.face_patch_proj(patch_token),
            self.text_embed_proj(text),
            self.face_pos_proj(self.face_encoder.pos_embed),
            self.text_pos_proj(self.positional_embedding),
        )
        return fused, pooled

    def encode_text(self, input_ids: Tensor, has_face: Tensor, class_token: Tensor) -> tuple[Tensor, Tensor]:
        """-> text [rows, tokens, width] after the final norm; pooled [rows, width], its row at the end token, not projected."""
        length = input_ids.shape[1]
        in_window = torch.arange(length, device=input_ids.device) < self.identity_window
        shows_face = (input_ids == self.identity_token) & in_window & has_face
        identity = self.proj1(class_token).unsqueeze(1)
        tokens = torch.where(shows_face.unsqueeze(-1), identity, self.token_embedding(input_ids))
        text: Tensor = self.ln_final(self.transformer(tokens + self.positional_embedding))
        # The end token has the vocabulary's largest id; padding is smaller. More runtimes search int32 than int64.
        end = input_ids.to(torch.int32).argmax(dim=1, keepdim=True).unsqueeze(-1).expand(-1, -1, text.shape[-1])
        return text, text.gather(1, end).squeeze(1)
