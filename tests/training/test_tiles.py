"""Tiles through a trained VAE: no picture far from the whole one, and no step where tiles meet."""

from pathlib import Path

import numpy as np
import pytest
import torch

from faceclip_serving.contract.variants.sdxl import NANO
from faceclip_serving.sampling.tiling import decode_tiled, encode_tiled, spans
from training.run.weights import read_vae
from training.world.people import sample_identity, sample_scene
from training.world.render import render

WEIGHTS = Path(__file__).resolve().parents[2] / "weights" / "nano"
TILE = 32


needs_weights = pytest.mark.skipif(
    not (WEIGHTS / "vae.safetensors").exists(), reason="weights/nano/vae.safetensors is not there"
)


@needs_weights
def test_a_trained_encoder_in_tiles_gives_nearly_the_latents_of_the_whole_picture_and_the_same_picture():
    vae = read_vae(WEIGHTS)

    def encode(picture):
        with torch.no_grad():
            posterior = vae.encode(torch.from_numpy(picture) * 2 - 1).latent_dist
        return {"latent_mean": posterior.mean.numpy(), "latent_std": posterior.std.numpy()}

    def decode(latents):
        with torch.no_grad():
            return (vae.decode(torch.from_numpy(latents)).sample / 2 + 0.5).clamp(0, 1).numpy()

    portrait = render(sample_identity(900), sample_scene("tile", 0), 512).image
    picture = np.ascontiguousarray((portrait.astype(np.float32) / 255).transpose(2, 0, 1)[None])
    whole, tiled = encode(picture), encode_tiled(encode, picture, TILE, NANO.latent_scale)
    for name, latents in whole.items():
        assert np.square(tiled[name] - latents).mean() < 0.01 * latents.var(), name
    error = np.square(decode(tiled["latent_mean"]) - decode(whole["latent_mean"])).mean()
    assert -10 * np.log10(error) >= 40


@needs_weights
def test_a_trained_decoder_in_tiles_is_within_40_db_and_shows_no_seam():
    vae, scale = read_vae(WEIGHTS), NANO.latent_scale

    def decode(latents):
        with torch.no_grad():
            return (vae.decode(torch.from_numpy(latents)).sample / 2 + 0.5).clamp(0, 1).numpy()

    portrait = render(sample_identity(900), sample_scene("tile", 0), 384).image
    pixels = torch.from_numpy(portrait.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mode().numpy()
    whole, tiled = decode(latents), decode_tiled(decode, latents, TILE, scale)
    assert -10 * np.log10(np.square(tiled - whole).mean()) >= 40
    step = np.abs(np.diff(tiled - whole, axis=3)).mean(axis=(0, 1, 2))
    edges = {edge * scale for span in spans(latents.shape[3], TILE, scale) for edge in (span.start, span.start + TILE)}
    inner = [edge - 1 for edge in edges if 0 < edge < whole.shape[3]]
    assert inner and max(step[inner]) < 0.5 / 255
