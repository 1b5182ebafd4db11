"""The FaceCLIP encoder: every branch run on the same rows, their outputs joined.

Knows how rows find their faces, and what a row without a face sees. The published definition of "no face" is the features of
an all-zero image without the identity token; those features come in from the caller, who computes them once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from faceclip_serving.contract.variants import architectures
from faceclip_serving.contract.variants.variant import Tokens

from ...checkpoint.deferred import values
from .attention import unit_length
from .branch import FaceCLIPBranch

_NOT_COMPUTED_WITH = ("mask_token", "num_batches_tracked")
"""Last parts of face encoder tensor names that inference never reads."""


class FaceCLIPEncoder(nn.Module):
    """Sub-modules are named by the keys of `architecture.towers`. Built for inference: evaluation mode, no gradients."""

    def __init__(self, architecture: architectures.SDXLArchitecture, tokens: Tokens) -> None:
        super().__init__()
        self.branch_names = tuple(architecture.towers)
        for name, tower in architecture.towers.items():
            self.add_module(name, FaceCLIPBranch(tower, architecture.face, architecture.fuser, tokens))
        self.requires_grad_(False).eval()

    @property
    def branches(self) -> list[FaceCLIPBranch]:
        """The branches in the order of concatenation."""
        return [getattr(self, name) for name in self.branch_names]

    def encode_faces(self, aligned_faces: Tensor, shared: bool) -> tuple[Tensor, Tensor]:
        """Aligned faces [faces, 3, height, width], RGB in [0, 1] -> the features that prompts are fused with.

        class_token [faces, branches, classes], unit length; patch_token [faces, branches, patches, width]. With `shared`, the
        first branch's face encoder answers for all: right only where `face_encoders_equal`.
        """
        running = self.branches[:1] if shared else self.branches
        features = [branch.face_encoder(aligned_faces) for branch in running]
        class_token = torch.stack([unit_length(of_class) for of_class, _ in features], dim=1)
        patch_token = torch.stack([of_patches for _, of_patches in features], dim=1)
        if shared:
            copies = len(self.branches)
            return class_token.expand(-1, copies, -1), patch_token.expand(-1, copies, -1, -1)
        return class_token, patch_token

    def encode_rows(
        self,
        input_ids: Tensor,
        face_index: Tensor,
        class_token: Tensor,
        patch_token: Tensor,
        no_face_class_token: Tensor,
        no_face_patch_token: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Prompts, each with the face it names -> embeddings [rows, tokens, sum of widths], pooled [rows, last width].

        input_ids int64 [rows, tokens]; face_index int64 [rows, 1], -1: no face; class_token [faces, branches, classes] and
        patch_token [faces, branches, patches, width] of `encode_faces`; the `no_face_*` of one all-zero image.
        """
        chosen = face_index.squeeze(1) + 1  # row 0 of the joined features is "no face"
        row_class = torch.cat((no_face_class_token, class_token)).index_select(0, chosen)
        row_patches = torch.cat((no_face_patch_token, patch_token)).index_select(0, chosen)
        has_face = face_index >= 0
        outputs = [branch(input_ids, has_face, row_class[:, i], row_patches[:, i]) for i, branch in enumerate(self.branches)]
        return torch.cat([fused for fused, _ in outputs], dim=-1), outputs[-1][1]

    def forward(self, aligned_faces: Tensor, face_exist: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """The reference form, one image per row: (embeddings, pooled) as `encode_rows`.

        aligned_faces [rows, 3, height, width], RGB in [0, 1]; face_exist bool [rows]: where false the image counts as all zeros;
        input_ids int64 [rows, tokens].
        """
        class_token, patch_token = self.encode_faces(aligned_faces, shared=False)
        no_face = self.encode_faces(torch.zeros_like(aligned_faces[:1]), shared=False)
        rows = torch.arange(aligned_faces.shape[0], device=aligned_faces.device)
        face_index = torch.where(face_exist, rows, -1).unsqueeze(1)
        return self.encode_rows(input_ids, face_index, class_token, patch_token, *no_face)


def face_encoders_equal(encoder: FaceCLIPEncoder) -> bool:
    """Whether all branches hold the same face encoder, bit for bit, so that one run can serve them all."""
    first, *others = (branch.face_encoder.state_dict(keep_vars=True) for branch in encoder.branches)
    names = [name for name in first if name.rsplit(".", 1)[-1] not in _NOT_COMPUTED_WITH]
    return all(torch.equal(values(first[name]), values(other[name])) for other in others for name in names)
