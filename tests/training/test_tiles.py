"""Tiled decoding by a trained decoder: no picture far from the whole decode, and no step where tiles meet."""

from pathlib import Path

import numpy as np
import pytest
import torch

from faceclip_serving.contract.variants.sdxl import NANO
from faceclip_serving.sampling.tiling import decode_tiled, spans
from training.weights import read_vae
from training.world.people import sample_identity, sample_scene
from training.world.render import render

WEIGHTS = Path(__file__).resolve().parents[2] / "weights" / "nano"
TILE = 32


@pytest.mark.skipif(not (WEIGHTS / "vae.safetensors").exists(), reason="weights/nano/vae.safetensors is not there")
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
