"""FaceCLIP's networks against the published checkpoint's names and against numbers of the original network.

`tests/data/face_clip_*.state_dict.json`: tensor name -> shape; `{n}` in a name stands for the indices 0 to n-1.
`tests/data/face_clip_tiny.npz`: inputs and outputs of the original network at tiny widths, filled by `export.checkpoint.seeded`; of the
144 patches every 13th is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from export.checkpoint.seeded import fill_seeded
from export.networks.faceclip import FaceCLIPEncoder, face_encoders_equal
from export.networks.faceclip.attention import softmax_fp32, unit_length
from export.networks.faceclip.deformable import DeformableLayer
from faceclip_serving.contract.variants.architectures import FACE_SIZE, FaceViT, Fuser, SDXLArchitecture
from faceclip_serving.contract.variants.sdxl import SDXL, TINY_SDXL
from tests.export.inputs import seeded_input

DATA = Path(__file__).parents[2] / "data"
TOLERANCE = 2e-5
"""Absolute. A right network errs by 2e-6; the smallest wrong constant, the epsilon of a batch norm, by 4e-5."""
IDENTITY = 1014
PATCHES = slice(None, None, 13)

TOKENS = replace(SDXL.tokens[0], identity_token=IDENTITY)
GOLDEN_ARCHITECTURE = replace(
    TINY_SDXL.architecture,
    towers={name: replace(tower, vocabulary=49408) for name, tower in TINY_SDXL.architecture.towers.items()},
)

LAST_ROUND = GOLDEN_ARCHITECTURE.fuser.rounds - 1
NEVER_READ = re.compile(
    r"text_projection|logit_scale|logit_bias|face_encoder\.mask_token|fuser\.enc_output.*"
    rf"|fuser\.encoder\.layers\.{LAST_ROUND}\..*"
    rf"|fuser\.encoder\.fusion_layers\.{LAST_ROUND}\.(gamma_v|attn\.values_l_proj\..*|attn\.out_v_proj\..*)"
)
"""Names, without the branch, that stay out of every graph: of training, and what only the faces after the last round would need."""


def published_shapes(file: str) -> dict[str, list[int]]:
    """Tensor name -> shape, repetitions written out."""
    shapes = {}
    for name, shape in json.loads((DATA / file).read_text()).items():
        repeated = re.search(r"\{(\d+)\}", name)
        for i in range(int(repeated[1]) if repeated else 1):
            shapes[re.sub(r"\{\d+\}", str(i), name)] = shape
    return shapes


def shapes_of(architecture: SDXLArchitecture) -> dict[str, list[int]]:
    with torch.device("meta"):
        encoder = FaceCLIPEncoder(architecture, TOKENS)
    return {name: list(tensor.shape) for name, tensor in encoder.state_dict().items()}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(DATA / "face_clip_tiny.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture(scope="module")
def encoder() -> FaceCLIPEncoder:
    encoder = FaceCLIPEncoder(GOLDEN_ARCHITECTURE, TOKENS)
    fill_seeded(encoder)
    return encoder


@pytest.fixture(scope="module")
def faces() -> Tensor:
    """face0, face1, and zeros for "no face"."""
    shape = (3, FACE_SIZE, FACE_SIZE)
    return torch.from_numpy(np.stack([seeded_input("face0", shape), seeded_input("face1", shape), np.zeros(shape, np.float32)]))


@pytest.fixture(scope="module")
def features(encoder: FaceCLIPEncoder, faces: Tensor) -> tuple[Tensor, Tensor]:
    return encoder.encode_faces(faces, shared=False)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


# ------------------------------------------------------------------------------------------------------- the checkpoint
def test_full_size_names_and_shapes_are_the_published_ones() -> None:
    published = published_shapes("face_clip_encoder.state_dict.json")
    assert len(published) == 1686
    assert shapes_of(SDXL.architecture) == published


def test_tiny_names_and_shapes_are_those_of_the_golden_run() -> None:
    assert shapes_of(GOLDEN_ARCHITECTURE) == published_shapes("face_clip_tiny.state_dict.json")


def test_tensors_of_training_are_loaded_but_never_read(golden: dict[str, Tensor], faces: Tensor) -> None:
    encoder = FaceCLIPEncoder(GOLDEN_ARCHITECTURE, TOKENS).requires_grad_(True)
    fill_seeded(encoder)
    with torch.enable_grad():
        embeddings, pooled = encoder(faces[:1], torch.tensor([True]), golden["input_ids"].long()[:1])
        (embeddings.square().sum() + pooled.square().sum()).backward()
    unread = {name for name, parameter in encoder.named_parameters() if parameter.grad is None}
    assert unread == {name for name, _ in encoder.named_parameters() if NEVER_READ.fullmatch(name.partition(".")[2])}


# -------------------------------------------------------------------------------------------------- the original's numbers
def test_reference_form_reproduces_the_original(encoder: FaceCLIPEncoder, golden: dict[str, Tensor], faces: Tensor) -> None:
    embeddings, pooled = encoder(faces, torch.tensor([True, True, False]), golden["input_ids"].long())
    torch.testing.assert_close(embeddings, golden["embeddings"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(pooled, golden["pooled"], atol=TOLERANCE, rtol=0)


def test_face_encoder_reproduces_the_original(encoder: FaceCLIPEncoder, golden: dict[str, Tensor], faces: Tensor) -> None:
    branch = encoder.branches[0]
    class_token, patch_token = branch.face_encoder(faces)
    torch.testing.assert_close(class_token, golden["l.class_token"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(patch_token[:, PATCHES], golden["l.patch_token"], atol=TOLERANCE, rtol=0)
    projected = branch.face_patch_proj(patch_token)
    torch.testing.assert_close(projected[:, PATCHES], golden["l.face_patch_proj"], atol=TOLERANCE, rtol=0)


def test_class_token_has_unit_length(features: tuple[Tensor, Tensor], golden: dict[str, Tensor]) -> None:
    torch.testing.assert_close(features[0][:, 0], golden["l.face_feat"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(features[0].norm(dim=-1), torch.ones(3, 2))


def test_text_tower_reproduces_the_original(encoder: FaceCLIPEncoder, golden: dict[str, Tensor]) -> None:
    branch = encoder.branches[0]
    has_face = torch.tensor([[True], [True], [False]])
    _, pooled = branch.encode_text(golden["input_ids"].long(), has_face, golden["l.face_feat"])
    torch.testing.assert_close(pooled, golden["l.text_pooled"], atol=TOLERANCE, rtol=0)
    # The projection is not part of the encoder's output; here it shows that the tensor was loaded the right way round.
    torch.testing.assert_close(unit_length(pooled @ branch.text_projection), golden["l.text_feat"], atol=TOLERANCE, rtol=0)


# ------------------------------------------------------------------------------------------------------- rows and faces
def test_each_row_reads_the_face_it_names(
    encoder: FaceCLIPEncoder, golden: dict[str, Tensor], features: tuple[Tensor, Tensor]
) -> None:
    given = [feature[:2] for feature in features]
    no_face = [feature[2:] for feature in features]
    rows = [2, 1, 0, 1]
    ids = golden["input_ids"].long()[rows]
    embeddings, pooled = encoder.encode_rows(ids, torch.tensor([[-1], [1], [0], [1]]), *given, *no_face)
    torch.testing.assert_close(embeddings, golden["embeddings"][rows], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(pooled, golden["pooled"][rows], atol=TOLERANCE, rtol=0)
    swapped, _ = encoder.encode_rows(ids, torch.tensor([[-1], [0], [1], [0]]), *given, *no_face)
    assert (swapped - embeddings).abs().amax(dim=(1, 2))[1:].min() > 0.01


def test_identity_word_is_replaced_only_where_a_face_is_given(encoder: FaceCLIPEncoder, golden: dict[str, Tensor]) -> None:
    with_word = golden["input_ids"].long()[:1]
    outside = with_word.clone()
    position = int((with_word[0] == IDENTITY).nonzero())
    outside[0, position], outside[0, TOKENS.identity_window] = 320, IDENTITY
    ids = torch.cat((with_word, with_word, outside))
    has_face = torch.tensor([[True], [False], [True]])
    classes = GOLDEN_ARCHITECTURE.face.classes
    one, other = (unit_length(torch.from_numpy(seeded_input(name, (1, classes))) - 0.5).expand(3, -1) for name in "ab")
    for branch in encoder.branches:
        change = (branch.encode_text(ids, has_face, one)[1] - branch.encode_text(ids, has_face, other)[1]).abs().amax(1)
        assert change[0] > 1e-3
        assert change[1:].tolist() == [0.0, 0.0]


def test_one_face_encoder_serves_both_branches_when_they_are_equal(faces: Tensor) -> None:
    encoder = FaceCLIPEncoder(GOLDEN_ARCHITECTURE, TOKENS)
    fill_seeded(encoder)
    assert not face_encoders_equal(encoder)
    first, second = (branch.face_encoder for branch in encoder.branches)
    second.load_state_dict(first.state_dict())
    second.mask_token.add_(1.0)
    assert face_encoders_equal(encoder)
    apart, shared = encoder.encode_faces(faces, shared=False), encoder.encode_faces(faces, shared=True)
    for of_both, of_one in zip(apart, shared, strict=True):
        assert of_one.shape == of_both.shape
        torch.testing.assert_close(of_one, of_both, atol=1e-6, rtol=0)
    second.state_dict()["feature.3.running_mean"][0] += 1.0
    assert not face_encoders_equal(encoder)


def test_batches_do_not_mix_rows(encoder: FaceCLIPEncoder, golden: dict[str, Tensor], features: tuple[Tensor, Tensor]) -> None:
    no_face = [feature[2:] for feature in features]
    alone, _ = encoder.encode_rows(
        golden["input_ids"].long()[1:2], torch.tensor([[0]]), *[feature[1:2] for feature in features], *no_face
    )
    torch.testing.assert_close(alone[0], golden["embeddings"][1], atol=TOLERANCE, rtol=0)


def test_other_image_and_patch_sizes(golden: dict[str, Tensor], faces: Tensor) -> None:
    face = FaceViT(width=32, depth=1, heads=2, classes=16, image_size=60, patch_size=8)
    encoder = FaceCLIPEncoder(replace(GOLDEN_ARCHITECTURE, face=face, fuser=Fuser(rounds=2)), TOKENS)
    fill_seeded(encoder)
    class_token, patch_token = encoder.encode_faces(faces, shared=False)
    assert (list(class_token.shape), list(patch_token.shape)) == ([3, 2, 16], [3, 2, 49, 32])
    embeddings, pooled = encoder(faces, torch.tensor([True, True, False]), golden["input_ids"].long())
    assert (list(embeddings.shape), list(pooled.shape)) == ([3, 77, 160], [3, 96])
    assert embeddings.isfinite().all()


# ------------------------------------------------------------------------------------------------------------ the parts
def test_deformable_attention_reads_where_the_offsets_point() -> None:
    width, heads, points, grid, rows = 8, 2, 3, 4, 2
    attention = DeformableLayer(width, heads, points, ffn=8, grid=grid).self_attn
    fill_seeded(attention)
    attention.sampling_offsets.weight *= 4.0  # far enough to leave the grid here and there
    query, value = (torch.from_numpy(seeded_input(name, (rows, grid * grid, width))) for name in ("query", "value"))
    offsets = attention.sampling_offsets(query).reshape(rows, grid * grid, heads, points, 2)
    weights = attention.attention_weights(query).reshape(rows, grid * grid, heads, points).softmax(-1)
    picture = attention.value_proj(value).reshape(rows, grid, grid, heads, width // heads)

    def sample(row: int, head: int, x: float, y: float) -> Tensor:
        """Bilinear value at patch coordinates (x, y), where patch centres are whole numbers; zero outside."""
        left, top = int(np.floor(x)), int(np.floor(y))
        total = torch.zeros(width // heads)
        for column in (left, left + 1):
            for line in (top, top + 1):
                if 0 <= column < grid and 0 <= line < grid:
                    total += (1 - abs(x - column)) * (1 - abs(y - line)) * picture[row, line, column, head]
        return total

    read = torch.zeros(rows, grid * grid, heads, width // heads)
    for row, patch, head, point in np.ndindex(rows, grid * grid, heads, points):
        x, y = np.array([patch % grid, patch // grid]) + offsets[row, patch, head, point].numpy()
        read[row, patch, head] += weights[row, patch, head, point] * sample(row, head, x, y)
    expected = attention.output_proj(read.flatten(2))
    torch.testing.assert_close(attention(query, value), expected, atol=1e-5, rtol=0)


def test_softmax_and_norm_compute_in_float32_and_keep_the_dtype() -> None:
    scores = torch.linspace(-8, 8, 4096).half()
    assert softmax_fp32(scores).dtype == torch.float16
    assert torch.equal(softmax_fp32(scores), torch.softmax(scores.float(), -1).half())
    long = torch.full((1, 512), 100.0, dtype=torch.float16)  # the sum of squares is far beyond half's 65504
    torch.testing.assert_close(unit_length(long), torch.full_like(long, 512**-0.5))
