"""How the faces of training people are spread: people who were never drawn in training are like them, and what is no face is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.quality.world import shoot
from export.checkpoint.committed import own_folder
from export.checkpoint.tensor_files import read_tensors
from faceclip_serving.contract.names import STATISTICS_FILE
from faceclip_serving.contract.variants.sdxl import NANO
from faceclip_serving.face.familiarity import FaceStatistics, read_statistics
from training.learning.face_statistics import face_statistics
from training.learning.identity import face_features
from training.networks import nano
from training.pictures.crops import encoder_view
from training.pictures.dataset import SPLITS, VIEW, scene_of
from training.run.weights import half, read_generator
from training.world.people import sample_identity

WEIGHTS = own_folder(NANO)
assert WEIGHTS is not None


def drawn(split: str, people: int) -> NDArray[np.uint8]:
    """Crops of two pictures of each."""
    numbers = [SPLITS[split] + i for i in range(people)]
    shots = shoot([(sample_identity(number), scene_of(number, k)) for number in numbers for k in (0, 2)])
    return np.stack([encoder_view(crop, VIEW) for crop in shots.crops])


def grey() -> NDArray[np.uint8]:
    return np.stack([np.full((VIEW, VIEW, 3), level, np.uint8) for level in range(16, 256, 48)])


def test_the_committed_ones_know_drawn_test_people_and_no_grey_planes() -> None:
    known = read_statistics(WEIGHTS, NANO)
    assert known is not None
    vit = read_generator(WEIGHTS)[1].encoder.branches[0].face_encoder
    people, planes = (known.distances(face_features(vit, crops)[1].float().numpy()) for crops in (drawn("test", 20), grey()))
    assert np.mean(people > known.bound) <= 0.05 and planes.min() > known.bound
    assert 1.0 < np.median(people) < 1.4


def test_they_follow_from_the_crops_alone_and_fit_half_precision() -> None:
    vit = nano.make_encoder(0).branches[0].face_encoder
    crops = np.random.default_rng(0).integers(0, 256, (24, VIEW, VIEW, 3)).astype(np.uint8)
    made, again = (face_statistics(vit, crops) for _ in range(2))
    assert all(torch.equal(made[name], again[name]) for name in made)
    assert made.keys() == read_tensors(WEIGHTS / STATISTICS_FILE).keys()
    assert all(torch.isfinite(tensor).all() for tensor in half(made).values())
    patches = face_features(vit, crops)[1].float().numpy()
    arrays = {name: tensor.numpy() for name, tensor in made.items()}
    distances = FaceStatistics(arrays["mean"], arrays["factors"], arrays["factors_of_mean"], 0.0).distances(patches)
    assert np.mean(distances <= arrays["bound"]) == pytest.approx(23 / 24)
