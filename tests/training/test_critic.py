"""The critic of latents, and the decoder's own stage: what they compare, and what they leave alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from faceclip_serving.contract.variants.sdxl import NANO
from training.learning.autoencoder import Latents, decoder_stage, encode_all
from training.learning.critic import critic_stage
from training.learning.loop import run
from training.networks import nano
from training.pictures.dataset import Pictures, build
from training.run.work import make_critic


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return build(tmp_path_factory.mktemp("world"), "train", 3, 128, processes=1)


def test_a_critic_sees_no_difference_where_there_is_none_and_more_where_there_is_more() -> None:
    critic = make_critic(0).eval().requires_grad_(False)
    true = torch.randn(3, NANO.latent_channels, 16, 16, generator=torch.Generator().manual_seed(1))
    other = torch.randn(3, NANO.latent_channels, 16, 16, generator=torch.Generator().manual_seed(2))
    found = [critic.difference(true + share * (other - true), true)[0] for share in (0.0, 0.2, 1.0)]
    assert torch.allclose(found[0], torch.zeros(3), atol=1e-5)
    assert (found[0] < found[1]).all() and (found[1] < found[2]).all()
    strange = [critic.strangeness(true + share * (other - true), true) for share in (0.0, 0.2, 1.0)]
    assert torch.allclose(strange[0], torch.zeros(3), atol=1e-5)
    assert (strange[0] < strange[1]).all() and (strange[1] < strange[2]).all()
    for compared in (lambda guess: critic.difference(guess, true)[0], lambda guess: critic.strangeness(guess, true)):
        guess = other.clone().requires_grad_(True)
        compared(guess).sum().backward()
        assert guess.grad is not None and (guess.grad.flatten(1).norm(dim=1) > 0).all()


def test_a_critic_learns_the_people_and_scenes_it_is_shown(data: Pictures, tmp_path: Path) -> None:
    stage = critic_stage(make_critic(1), data, Latents(nano.make_vae(0).eval(), data.pictures), 30, 12, seed=1)
    run(stage, tmp_path, report_every=10)
    history = torch.load(tmp_path / "critic.pt", weights_only=True)["history"]
    assert {"margin", "factors", "place", "expression", "hat_colour"} <= history[0].keys()
    assert history[-1]["margin"] < history[0]["margin"] and history[-1]["place"] < history[0]["place"]


def test_the_decoder_learns_alone_and_latents_stay(data: Pictures, tmp_path: Path) -> None:
    vae = nano.make_vae(0)
    before = encode_all(vae, data.pictures[:2])
    decoder = {name: value.clone() for name, value in vae.decoder.state_dict().items()}
    run(decoder_stage(vae, data, 2, 2, 32, seed=1), tmp_path)
    assert np.array_equal(encode_all(vae, data.pictures[:2]), before)
    assert not torch.equal(vae.decoder.state_dict()["conv_in.weight"], decoder["conv_in.weight"])
