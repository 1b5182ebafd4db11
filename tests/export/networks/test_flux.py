"""FaceT5's networks against the published checkpoint's names and against numbers of the original network.

`tests/data/face_t5_*.state_dict.json`: tensor name -> shape; `{n}` in a name stands for the indices 0 to n-1.
`tests/data/face_t5_tiny.npz`: inputs and outputs of the original network at tiny widths, filled by `export.checkpoint.seeded`; of the 144
patches every 13th is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from export.checkpoint.seeded import fill_seeded
from export.networks.faceclip.attention import unit_length
from export.networks.faceclip.face_t5 import FaceT5, FaceT5Encoder, PatchLayer
from export.networks.faceclip.face_t5_pooled import PooledText
from export.networks.faceclip.face_t5_text import T5Encoder
from faceclip_serving.contract.variants.architectures import FACE_SIZE, T5Tower, TextTower
from faceclip_serving.contract.variants.flux import FLUX, TINY_FLUX
from tests.export.inputs import seeded_input

from .test_faceclip import PATCHES, published_shapes

DATA = Path(__file__).parents[2] / "data"
TOLERANCE = 2e-5
"""Absolute. A right network errs by 2e-6."""
ENCODER = "encoder_2."

GOLDEN_ARCHITECTURE = replace(TINY_FLUX.architecture, text=replace(TINY_FLUX.architecture.text, vocabulary=1000, max_tokens=48))
LAST_ROUND = GOLDEN_ARCHITECTURE.fuser.rounds - 1
NEVER_READ = re.compile(
    r"face_encoder\.(mask_token|feature\..*)|face_pos_proj\..*|fuser\.enc_output.*"
    rf"|fuser\.encoder\.layers\.{LAST_ROUND}\..*"
    rf"|fuser\.encoder\.fusion_layers\.{LAST_ROUND}\.(gamma_v|attn\.values_l_proj\..*|attn\.out_v_proj\..*)"
)
"""Names that stay out of every graph: the class token, the positions of faces, and what only later faces would need."""


class AcrossRows(nn.Module):
    """The face layer as the original runs it in a batch: each patch attends to the same patch of the other rows."""

    def __init__(self, layer: PatchLayer, heads: int) -> None:
        super().__init__()
        self.layer = layer
        width = layer.self_attn.in_proj_weight.shape[1]
        self.attention = nn.MultiheadAttention(width, heads, batch_first=False)
        self.attention.load_state_dict(layer.self_attn.state_dict())

    def forward(self, faces: Tensor, _positions: Tensor) -> Tensor:
        layer = self.layer
        faces = layer.norm1(faces + self.attention(faces, faces, faces, need_weights=False)[0])
        merged: Tensor = layer.norm2(faces + layer.linear2(torch.relu(layer.linear1(faces))))
        return merged


def shapes_of(module_of: type[nn.Module], *arguments: object) -> dict[str, list[int]]:
    with torch.device("meta"):
        module = module_of(*arguments)
    return {name: list(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(DATA / "face_t5_tiny.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture
def encoder(golden: dict[str, Tensor]) -> FaceT5:
    parts = GOLDEN_ARCHITECTURE
    encoder = FaceT5(parts.text, parts.face, parts.fuser).requires_grad_(False).eval()
    fill_seeded(encoder)
    encoder.positional_embedding.copy_(golden["positional_embedding"])  # computed there, not drawn
    return encoder


@pytest.fixture(scope="module")
def faces() -> Tensor:
    shape = (3, FACE_SIZE, FACE_SIZE)
    return torch.from_numpy(np.stack([seeded_input("face0", shape), seeded_input("face1", shape)]))


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


# ------------------------------------------------------------------------------------------------------- the checkpoint
def test_full_size_names_and_shapes_are_the_published_ones() -> None:
    published = published_shapes("face_t5_encoder.state_dict.json")
    assert len(published) == 762
    found = shapes_of(FaceT5Encoder, FLUX.architecture)
    assert {name: shape for name, shape in found.items() if name.startswith(ENCODER)} == published


def test_tiny_names_and_shapes_are_those_of_the_golden_run() -> None:
    parts = GOLDEN_ARCHITECTURE
    assert shapes_of(FaceT5, parts.text, parts.face, parts.fuser) == published_shapes("face_t5_tiny.state_dict.json")


def test_the_pooled_text_has_the_names_of_transformers_model() -> None:
    """Since transformers 5 the names lack the prefix that the checkpoint was written with."""
    sizes = FLUX.architecture.pooled
    with torch.device("meta"):
        stock = CLIPTextModel(_clip_config(sizes))
    expected = {f"text_model.{name.removeprefix('text_model.')}": list(t.shape) for name, t in stock.state_dict().items()}
    assert shapes_of(PooledText, sizes) == expected


def test_what_is_never_read_is_loaded_only(encoder: FaceT5, golden: dict[str, Tensor], faces: Tensor) -> None:
    encoder.requires_grad_(True)
    with torch.enable_grad():
        encoder(golden["input_ids"].long(), encoder.face_encoder(faces)[1]).square().sum().backward()
    unread = {name for name, parameter in encoder.named_parameters() if parameter.grad is None}
    assert unread == {name for name, _ in encoder.named_parameters() if NEVER_READ.fullmatch(name)}


# -------------------------------------------------------------------------------------------------- the original's numbers
def test_text_reproduces_the_original(encoder: FaceT5, golden: dict[str, Tensor]) -> None:
    torch.testing.assert_close(encoder.t5_encoder(golden["input_ids"].long()), golden["t5"], atol=TOLERANCE, rtol=0)


def test_faces_reproduce_the_original(encoder: FaceT5, golden: dict[str, Tensor], faces: Tensor) -> None:
    class_token, patch_token = encoder.face_encoder(faces)
    torch.testing.assert_close(unit_length(class_token), golden["face_feat"], atol=TOLERANCE, rtol=0)
    projected = encoder.face_patch_proj(patch_token)
    torch.testing.assert_close(projected[:, PATCHES], golden["face_patch_proj"], atol=TOLERANCE, rtol=0)


def test_fusion_of_a_batch_reproduces_the_original_when_patches_attend_across_rows(
    encoder: FaceT5, golden: dict[str, Tensor], faces: Tensor
) -> None:
    layers = encoder.fuser.encoder.layers
    for i, layer in enumerate(layers):
        layers[i] = AcrossRows(layer, GOLDEN_ARCHITECTURE.fuser.face_heads)
    fused = encoder(golden["input_ids"].long(), encoder.face_encoder(faces)[1])
    torch.testing.assert_close(fused, golden["fused"], atol=TOLERANCE, rtol=0)


def test_one_row_is_what_the_original_computes_for_one_picture(
    encoder: FaceT5, golden: dict[str, Tensor], faces: Tensor
) -> None:
    """With a single row the original's attention has one element to attend to, and our layer is the same."""
    patches, ids = encoder.face_encoder(faces)[1], golden["input_ids"].long()
    ours = encoder(ids, patches)
    layers = encoder.fuser.encoder.layers
    for i, layer in enumerate(layers):
        layers[i] = AcrossRows(layer, GOLDEN_ARCHITECTURE.fuser.face_heads)
    for row in range(2):
        alone = encoder(ids[row : row + 1], patches[row : row + 1])
        torch.testing.assert_close(ours[row : row + 1], alone, atol=TOLERANCE, rtol=0)
    assert (ours - golden["fused"]).abs().max() > 1e-3  # in a batch the original mixes rows


# ----------------------------------------------------------------------------------------- transformers' own models
def _clip_config(sizes: TextTower) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.width,
        intermediate_size=4 * sizes.width,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        max_position_embeddings=sizes.max_tokens,
        hidden_act=sizes.activation,
        eos_token_id=2,  # as FLUX.1-dev's configuration says, which makes transformers take the largest id
        bos_token_id=0,
        pad_token_id=1,
    )


def test_pooled_text_equals_transformers_clip() -> None:
    sizes = TINY_FLUX.architecture.pooled
    stock, ours = CLIPTextModel(_clip_config(sizes)).eval(), PooledText(sizes).eval()
    fill_seeded(ours)
    own = {name.removeprefix("text_model."): tensor for name, tensor in ours.state_dict().items()}
    stock.load_state_dict({name: own[name.removeprefix("text_model.")] for name in stock.state_dict()})
    end = sizes.vocabulary - 1
    ids = torch.randint(1, end - 1, (3, sizes.max_tokens), generator=torch.Generator().manual_seed(0))
    for row, length in enumerate((3, 40, 76)):
        ids[row, length:] = end
    torch.testing.assert_close(ours(ids), stock(ids).pooler_output, atol=TOLERANCE, rtol=0)


def test_t5_equals_transformers_on_texts_longer_than_its_distances() -> None:
    sizes = T5Tower(width=32, ffn=48, heads=2, head_width=8, layers=2, vocabulary=60, max_tokens=300)
    config = T5Config(
        vocab_size=sizes.vocabulary,
        d_model=sizes.width,
        d_kv=sizes.head_width,
        d_ff=sizes.ffn,
        num_layers=sizes.layers,
        num_heads=sizes.heads,
        feed_forward_proj="gated-gelu",
    )
    stock = T5EncoderModel(config).eval()
    ours = T5Encoder(sizes).eval()
    fill_seeded(ours)
    renamed = {
        "embed_tokens": "encoder.embed_tokens",
        "block": "encoder.block",
        "self_attention_layer.self_attention": "layer.0.SelfAttention",
        "self_attention_layer.layer_norm": "layer.0.layer_norm",
        "pe_encoding.": "",
        "Wq": "q",
        "Wk": "k",
        "Wv": "v",
        "ff_layer.act": "layer.1.DenseReluDense",
        "ff_layer.wo": "layer.1.DenseReluDense.wo",
        "ff_layer.layer_norm": "layer.1.layer_norm",
        "final_layer_norm": "encoder.final_layer_norm",
    }
    tensors = {}
    for name, tensor in ours.state_dict().items():
        for old, new in renamed.items():
            name = name.replace(old, new)
        tensors[name] = tensor
    tensors["shared.weight"] = ours.embed_tokens.weight
    missing, unexpected = stock.load_state_dict(tensors, strict=False)
    assert not unexpected and set(missing) <= {"encoder.embed_tokens.weight", "shared.weight"}
    ids = torch.randint(0, 60, (2, 300), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(ids), stock(ids).last_hidden_state, atol=1e-4, rtol=0)
