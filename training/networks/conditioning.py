"""What the denoiser is conditioned on, for the joint encoder and for its two peers, behind one function: rows -> embeddings, pooled.

- joint: FaceCLIP, face and text in one encoder
- text only: the same encoder, which never sees a face
- adapter: the encoder reads the text alone and is frozen; `adapter.FaceTokens` are appended
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from export.networks.faceclip import FaceCLIPEncoder
from export.networks.faceclip.face_vit import FaceTransformer
from faceclip_serving.contract.variants.variant import Tokens

from .adapter import FaceTokens
from .texts import prompt_ids


@dataclass(frozen=True)
class Faces:
    """Features of a set of crops, computed once: class [n, classes] of unit length, patches [n, patches, width]."""

    classes: Tensor
    patches: Tensor
    drawn: int | None = None
    """Where lifelike faces follow the drawn ones, each in its place: how many are drawn."""

    def rows(self, index: Sequence[int]) -> tuple[Tensor, Tensor]:
        """As the encoder takes them, with its two branches sharing one face encoder."""
        chosen = torch.as_tensor(list(index), dtype=torch.long)
        return self.classes[chosen].float()[:, None].expand(-1, 2, -1), self.patches[chosen].float()[:, None].expand(
            -1, 2, -1, -1
        )


@torch.no_grad()
def no_face(vit: FaceTransformer, image_size: int) -> tuple[Tensor, Tensor]:
    """Features of the all-zero image, [1, branches, ...]."""
    was_training = vit.training
    vit.eval()
    feature, patches = vit(torch.zeros(1, 3, image_size, image_size))
    vit.train(was_training)
    return nn.functional.normalize(feature)[:, None].expand(-1, 2, -1), patches[:, None].expand(-1, 2, -1, -1)


class Conditioner(nn.Module):
    """Prompts and faces -> what the denoiser takes. With `adapter`, the text is encoded without the face."""

    def __init__(
        self, encoder: FaceCLIPEncoder, tokens: Tokens, tokenizer: Tokenizer, adapter: FaceTokens | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.adapter = encoder, adapter
        self.tokens, self.tokenizer = tokens, tokenizer
        self._read_nobody()
        # What no face is, by the face encoder that has come.
        self.register_load_state_dict_post_hook(lambda loaded, _: loaded._read_nobody())  # type: ignore[no-untyped-call]

    def _read_nobody(self) -> None:
        zero_class, zero_patch = no_face(self.encoder.branches[0].face_encoder, 112)
        self.register_buffer("zero_class", zero_class.contiguous(), persistent=False)
        self.register_buffer("zero_patch", zero_patch.contiguous(), persistent=False)

    def read_faces_with(self, vit: FaceTransformer) -> None:
        """Every branch gets the weights of `vit`; nobody is what these make of no face."""
        for branch in self.encoder.branches:
            branch.face_encoder.load_state_dict(vit.state_dict())
        self._read_nobody()

    def forward(
        self, prompts: Sequence[str], faces: Faces, index: Sequence[int], prefixed: Sequence[bool]
    ) -> tuple[Tensor, Tensor]:
        """`index`: row of `faces` of each prompt, -1 for none -> embeddings [rows, tokens, width], pooled [rows, width]."""
        classes, patches = faces.rows([max(i, 0) for i in index])
        zero_class: Tensor = self.get_buffer("zero_class")
        zero_patch: Tensor = self.get_buffer("zero_patch")
        if self.adapter is None:
            ids = prompt_ids(self.tokenizer, self.tokens, prompts, prefixed)
            face_index = torch.tensor([[row if i >= 0 else -1] for row, i in enumerate(index)])
            embeddings, pooled = self.encoder.encode_rows(ids, face_index, classes, patches, zero_class, zero_patch)
            return embeddings, pooled
        ids = prompt_ids(self.tokenizer, self.tokens, prompts, [False] * len(prompts))
        nobody = torch.full((len(prompts), 1), -1)
        with torch.no_grad():
            text, pooled = self.encoder.encode_rows(ids, nobody, classes[:1], patches[:1], zero_class, zero_patch)
        has_face = torch.tensor([i >= 0 for i in index])
        extra = self.adapter(classes[:, 0], patches[:, 0], has_face)
        return torch.cat([text, extra], 1), pooled
