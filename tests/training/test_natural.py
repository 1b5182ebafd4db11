"""Natural faces of the drawn people: what is painted, how cameras spoil it, and what the face encoder learns of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from faceclip_serving.face.alignment import TEMPLATE, apply, fit_similarity
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.face.search import find_faces
from training.learning.identity import face_features
from training.learning.loop import run
from training.learning.natural import PORTRAITS, Natural, build_natural, natural_stage, photographed
from training.networks import nano
from training.networks.conditioning import Conditioner, Faces
from training.networks.texts import read_tokenizer
from training.pictures.dataset import VIEW, Pictures, build
from training.run.work import TOKENIZER
from training.world.lifelike import lifelike
from training.world.people import BEARDS, GLASSES, HAIR_COLOURS, HAIR_STYLES, Identity, sample_identity

PEOPLE = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return build(tmp_path_factory.mktemp("world"), "train", PEOPLE, 128, processes=1)


@pytest.fixture(scope="module")
def natural(tmp_path_factory: pytest.TempPathFactory) -> Natural:
    return build_natural(tmp_path_factory.mktemp("natural"), "train", PEOPLE, processes=1)


def test_equal_inputs_give_equal_pixels_and_another_number_another_picture() -> None:
    first, again, other = (lifelike(sample_identity(5), number, 96) for number in (1, 1, 2))
    assert np.array_equal(first.image, again.image) and np.array_equal(first.landmarks, again.landmarks)
    assert not np.array_equal(first.image, other.image)


def _everybody() -> list[Identity]:
    """Every hair, beard and pair of glasses that there is, on other faces."""
    tables = (("hair_style", HAIR_STYLES), ("hair_colour", tuple(HAIR_COLOURS)), ("beard", BEARDS), ("glasses", GLASSES))
    return [
        replace(sample_identity(i), **{name: value})
        for i, (name, value) in enumerate((n, v) for n, options in tables for v in options)
    ]


@pytest.mark.proof
def test_the_servers_detector_takes_them_for_faces_and_their_landmarks_for_what_they_are() -> None:
    shots = [lifelike(person, 0) for person in _everybody()]
    detector = YuNet()
    found = [find_faces(shot.image, detector) for shot in shots]
    assert np.mean([len(faces) == 1 for faces in found]) >= 0.9
    apart = [
        np.linalg.norm(faces[0].landmarks - shot.landmarks, axis=1).mean()
        for faces, shot in zip(found, shots, strict=True)
        if faces
    ]
    assert np.median(apart) < 12  # of 256 pixels, a fifth of the distance of the eyes


def test_aligned_by_their_landmarks_they_lie_where_every_crop_has_them() -> None:
    for person in _everybody():
        marks = lifelike(person, 1, 128).landmarks.astype(np.float64)
        moved = apply(fit_similarity(marks, TEMPLATE), marks)
        assert np.linalg.norm(moved - TEMPLATE, axis=1).mean() < 50


def test_a_camera_changes_every_picture_but_keeps_what_it_was_given(natural: Natural) -> None:
    before = natural.plain.copy()
    one, again, other = (photographed(natural.plain, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (PEOPLE, 3, VIEW, VIEW) and one.min() >= 0 and one.max() <= 1
    assert (one != other).flatten(1).any(1).all() and np.array_equal(natural.plain, before)
    assert (one != again).float().mean() < 1  # all but the noise, which is torch's, is the generator's


def test_a_split_is_drawn_once(data: Pictures, tmp_path: Path) -> None:
    first = build_natural(tmp_path, "validation", 1, processes=1)
    assert first.plain.shape == (1, VIEW, VIEW, 3) and first.lifelike.shape == (1, PORTRAITS, VIEW, VIEW, 3)
    again = build_natural(tmp_path, "validation", 1, processes=1)
    assert np.array_equal(first.lifelike, again.lifelike) and len(list(tmp_path.iterdir())) == 1


@pytest.mark.proof
def test_the_encoder_learns_to_read_them_and_all_that_reads_it_stays(data: Pictures, natural: Natural, tmp_path: Path) -> None:
    encoder = nano.make_encoder(3)
    conditioner = Conditioner(encoder, nano.TOKENS, read_tokenizer(TOKENIZER))
    vit = nano.make_encoder(3).branches[0].face_encoder
    positions = vit.pos_embed.detach().clone()
    others = {name: value.clone() for name, value in conditioner.state_dict().items()}
    stage = natural_stage(vit, conditioner, data, Faces(*face_features(vit, data.crops)), natural, 16, PEOPLE, seed=3)
    run(replace(stage, warm_up=4), tmp_path, report_every=4)
    history = torch.load(tmp_path / "natural.pt", weights_only=True)["history"]
    assert all(history[-1][name] < history[0][name] for name in ("natural", "drawn", "embeddings"))
    assert torch.equal(vit.pos_embed, positions)
    assert all(torch.equal(value, others[name]) for name, value in conditioner.state_dict().items())
