"""Stand-in weights: the recorded bits of every kind of tensor, and filling in place."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from export.checkpoint.seeded import fill_seeded, seeded_tensor
from tests.export.inputs import seeded_input

RECORDED = [
    ("face_clip_l.logit_scale", (), "690921804fc24822"),
    ("face_clip_l.ln_final.weight", (64,), "43f53c1b5d2d5382"),
    ("face_clip_l.ln_final.bias", (64,), "23e6dd24ecdee54b"),
    ("face_clip_g.fuser.encoder.fusion_layers.3.gamma_v", (96,), "b5dd8f520f093266"),
    ("face_clip_g.fuser.encoder.fusion_layers.3.gamma_l", (96,), "2b79f25e527cbc48"),
    ("face_clip_l.face_encoder.feature.1.running_var", (48,), "364e8744c1a0d0e2"),
    ("face_clip_l.face_encoder.feature.1.running_mean", (48,), "69e136c86bb324ad"),
    ("face_clip_l.face_encoder.feature.1.num_batches_tracked", (), "af5570f5a1810b7a"),
    ("face_clip_l.positional_embedding", (77, 64), "8a5134133845143a"),
    ("conv_in.weight", (32, 4, 3, 3), "62b48ced58c0c4b9"),
    ("face_clip_l.token_embedding.weight", (49408, 96), "2dd68a1df2a83323"),  # more values than are drawn at a time
]
"""Name, shape, first half of the SHA-256 of the values, as the run that made the golden numbers drew them."""


def digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(("name", "shape", "expected"), RECORDED)
def test_bits_are_the_recorded_ones(name: str, shape: tuple[int, ...], expected: str) -> None:
    tensor = seeded_tensor(name, shape)
    assert tensor.shape == shape
    assert digest(tensor) == expected


def test_values_are_the_recorded_ones() -> None:
    assert seeded_tensor("conv_in.weight", (32, 4, 3, 3)).ravel()[:2].tolist() == [-0.15596456825733185, -0.3738434910774231]
    assert digest(seeded_input("face0", (3, 448, 448))) == "15314e5399babdff"


class Small(nn.Module):
    """Every kind of memory that a tensor of a state dict can have."""

    computed: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.narrow = nn.Linear(4, 4, bias=False).half()
        self.turned = nn.Parameter(torch.empty(6, 7).t())
        self.register_buffer("computed", torch.ones(2), persistent=False)


def test_fill_writes_every_tensor_in_place_by_its_prefixed_name() -> None:
    module = Small()
    places = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
    fill_seeded(module, "unet.")
    for name, tensor in module.state_dict().items():
        expected = torch.from_numpy(seeded_tensor(f"unet.{name}", tuple(tensor.shape))).to(tensor.dtype)
        assert torch.equal(tensor, expected), name
        assert tensor.data_ptr() == places[name]
    assert module.computed.tolist() == [1.0, 1.0]


def test_fill_refuses_a_module_without_memory() -> None:
    with torch.device("meta"):
        module = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"tensor 'weight': expected memory to fill.*to_empty"):
        fill_seeded(module)


def test_shape_changes_the_scale_and_name_changes_the_draw() -> None:
    narrow, wide = seeded_tensor("a.weight", (4, 4)), seeded_tensor("a.weight", (4, 16))
    np.testing.assert_allclose(narrow.ravel() * 2.0, wide.ravel()[:16] * 4.0, rtol=1e-6)
    assert not np.array_equal(narrow, seeded_tensor("b.weight", (4, 4)))


def test_huge_tensors_have_values_of_their_kind_and_no_two_rows_alike() -> None:
    tensor = seeded_tensor("huge.weight", (1 << 12, 3 << 10))
    assert tensor.std() == pytest.approx((3 << 10) ** -0.5, rel=1e-2)
    assert np.array_equal(tensor, seeded_tensor("huge.weight", (1 << 12, 3 << 10)))
    assert len(np.unique(tensor[:, :2], axis=0)) == 1 << 12
