"""What is added to a denoiser so that it draws in few steps: it starts as nothing, and is all that learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.learning.autoencoder import Latents
from training.learning.diffusion import TEXT_ONLY, Drops, Lesson
from training.learning.few_steps import DROPS, LowRank, few_steps_stage
from training.learning.loop import Stage, run
from training.networks import nano
from training.networks.conditioning import Conditioner, Faces
from training.networks.texts import read_tokenizer
from training.pictures.dataset import Pictures
from training.run.work import TOKENIZER, make_critic


def stage(steps: int, drops: Drops = DROPS) -> Stage:
    pictures = np.random.default_rng(0).integers(0, 255, (4, 128, 128, 3)).astype(np.uint8)
    data = Pictures("train", pictures, pictures[:, :112, :112])
    face = nano.ARCHITECTURE.face
    torch.manual_seed(1)
    faces = Faces(torch.randn(4, face.classes), torch.randn(4, face.patches, face.width))
    conditioner = Conditioner(nano.make_encoder(1), nano.TOKENS, read_tokenizer(TOKENIZER))
    named = {"expression": torch.tensor([0, 1, -1, 2])}
    critic = make_critic(1).requires_grad_(False)
    lesson = Lesson(data, Latents(nano.make_vae(0), pictures), faces, drops, 2, critic, named=named)
    return few_steps_stage(nano.make_unet(2), conditioner, lesson, 3.0, steps, seed=4)


def test_an_addition_starts_as_nothing_and_is_the_same_after_it_was_written_and_read() -> None:
    unet, same = nano.make_unet(0), nano.make_unet(0)
    added, other = LowRank(unet), LowRank(unet)
    added.fuse(unet)
    before, again = same.state_dict(), unet.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in before.items())
    for up in added.up:
        up.data.normal_()
    other.load_factors(added.factors())
    assert all(torch.equal(a, b) for a, b in zip(added.parameters(), other.parameters(), strict=True))
    read = other.weights(unet)
    assert all(torch.equal(value, read[name]) for name, value in added.weights(unet).items())


@pytest.mark.proof
def test_it_is_all_that_learns_its_target_follows_and_a_stop_changes_nothing(tmp_path: Path) -> None:
    whole = stage(3)
    assert {name.split(".")[0] for name, p in whole.modules.named_parameters() if p.requires_grad} == {"added"}
    run(whole, tmp_path / "whole")
    run(stage(3), tmp_path / "parts", stop_at=1)
    run(stage(3), tmp_path / "parts")
    first, again = (torch.load(tmp_path / part / "few_steps.pt", weights_only=True) for part in ("whole", "parts"))
    for tensors in ("modules", "averages"):
        assert all(torch.equal(value, again[tensors][name]) for name, value in first[tensors].items())
    student, target = ([v for n, v in first["modules"].items() if n.startswith(f"{part}.up")] for part in ("added", "target"))
    assert all(0 < float(b.norm()) < float(a.norm()) for a, b in zip(student, target, strict=True) if float(a.norm()) > 0)
    assert sum(float(a.norm()) for a in student) > 0


def test_guesses_are_told_of_the_person_where_a_face_is_given_and_of_what_is_named() -> None:
    faces = Drops(face=0.0, text=0.0, both=0.0)
    shown, hidden = (stage(1, drops).losses(0) for drops in (faces, replace(TEXT_ONLY, face=1.0)))
    assert shown["person"].item() > 0 == hidden["person"].item()
    assert shown["named"].item() > 0
