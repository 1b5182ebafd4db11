"""Rough pictures from latents without the VAE: one linear map from latent channels to RGB, fitted to the variant's own decoder.

The map is fitted when a repository is assembled. It knows colour and coarse form; fine detail exists only after decoding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..contract.tensors import Array

PREVIEW_FILE = "preview.npy"


def fit(decode: Callable[[Array], Array], channels: int, scale: int, side: int = 16, samples: int = 4) -> Array:
    """Least-squares map [channels + 1, 3] from smooth random latents and their decoded RGB means per latent cell.

    `decode`: latents [n, channels, side, side] -> RGB in [0, 1] [n, 3, side * scale, side * scale].
    """
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((samples, channels, side // 4, side // 4))
    latents = np.kron(coarse, np.ones((4, 4))).astype(np.float32)
    pictures = np.concatenate([decode(one[None]) for one in latents])
    means = pictures.reshape(samples, 3, side, scale, side, scale).mean(axis=(3, 5))
    design = _with_constant(latents.transpose(0, 2, 3, 1).reshape(-1, channels))
    factors = np.linalg.lstsq(design, means.transpose(0, 2, 3, 1).reshape(-1, 3), rcond=None)[0]
    return np.asarray(factors, np.float32)


def preview(factors: Array, latents: Array) -> Array:
    """Latents [channels, height, width] -> uint8 [height, width, 3], one pixel per latent cell."""
    rgb = _with_constant(latents.transpose(1, 2, 0)) @ factors
    return np.asarray((rgb.clip(0, 1) * 255).round(), np.uint8)


def _with_constant(channels_last: Array) -> Array:
    return np.concatenate([channels_last, np.ones((*channels_last.shape[:-1], 1), channels_last.dtype)], axis=-1)
