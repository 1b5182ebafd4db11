"""Stages `vae` and `decoder`: pictures <-> latents. Flat colours and thin lines matter most, so the loss looks at pixels and at edges,
at two scales.

The Kullback-Leibler term only keeps latents near unit size; `latent_scale` measures the scaling factor that makes them so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from .. import device
from ..pictures.dataset import Pictures
from .loop import Losses, Stage

_KL_WEIGHT = 1e-6
_FIRST_LOG_VARIANCE = -5.0
"""Latents start almost without noise: at unit noise the decoder learns to ignore them before they say anything."""
_LATENT_NOISE = 0.1
"""Of the latents' spread."""
_EDGE_WEIGHT = 0.6
_CONSTANT = 6.0


def as_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """[n, h, w, 3] 0-255 -> [n, 3, h, w] in [-1, 1]."""
    return device.tensor(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def _edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def reconstruction_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """L1 of pixels and of differences between neighbours, at full and half size."""
    loss = F.l1_loss(made, wanted)
    for _ in range(2):
        for a, b in zip(_edges(made), _edges(wanted), strict=True):
            loss = loss + _EDGE_WEIGHT * F.l1_loss(a, b)
        made, wanted = F.avg_pool2d(made, 2), F.avg_pool2d(wanted, 2)
    return loss


def start_as_thumbnail(vae: AutoencoderKL) -> None:
    """Weights with which the first three latents are the picture's block averages and decoding is a smooth enlargement.

    A random start spends hundreds of steps on finding colours at all; from here, training only has to add sharpness. Residual
    branches start at nothing. Group norms would remove brightness: a pair of constant channels, +K and -K, keeps their scale
    fixed, and since silu(a) - silu(-a) = a, a channel and its negative pass the last activation unchanged.
    """
    with torch.no_grad():
        for part in vae.modules():
            if isinstance(part, ResnetBlock2D):
                nn.init.zeros_(part.conv2.weight)
                nn.init.zeros_(part.conv2.bias)
                if part.conv_shortcut is not None:
                    _keep_colours(part.conv_shortcut, 1.0)
            elif isinstance(part, Downsample2D):
                _keep_colours(part.conv, 0.0)
                for colour in range(3):
                    part.conv.weight[colour, colour, :2, :2] = 0.25
            elif isinstance(part, Upsample2D):
                _keep_colours(part.conv, 0.0)
                tent = torch.tensor([0.25, 0.5, 0.25])
                for colour in range(3):
                    part.conv.weight[colour, colour] = tent[:, None] * tent
        for conv in (vae.encoder.conv_in, vae.decoder.conv_in, vae.quant_conv, vae.post_quant_conv):
            _keep_colours(conv, 1.0)
        # Channel of each colour, of its negative and of the two constants, all in one group of the last norm.
        size = vae.config.block_out_channels[-1] // vae.config.norm_num_groups
        group = [(c, 3 + c, 6, 7) if size >= 8 else (4 * c, 4 * c + 1, 4 * c + 2, 4 * c + 3) for c in range(3)]
        _pass_through(vae.encoder.mid_block.resnets[-1], None, vae.encoder, group)
        last = vae.decoder.up_blocks[-1].resnets
        size = vae.config.block_out_channels[0] // vae.config.norm_num_groups
        group = [(c, 3 + c, 6, 7) if size >= 8 else (size * c, size * c + 1, size * c + 2, size * c + 3) for c in range(3)]
        _pass_through(last[-1], last[0].conv_shortcut, vae.decoder, group)
        wide = vae.encoder.down_blocks[-1].resnets[0].conv_shortcut
        for colour in range(3):
            wide.weight[3 + colour] = -wide.weight[colour]


def _keep_colours(conv: Any, centre: float) -> None:
    """The first three outputs read the first three inputs (times `centre`, at the middle tap) and nothing else."""
    conv.weight[:3] = 0
    conv.bias[:3] = 0
    middle = conv.kernel_size[0] // 2
    for colour in range(3):
        conv.weight[colour, colour, middle, middle] = centre


def _pass_through(last: Any, shortcut: Any, end: Any, groups: Sequence[tuple[int, int, int, int]]) -> None:
    """Makes the closing norm, activation and convolution of `end` hand on three colours. `groups`: (+, -, +K, -K) per colour."""
    if shortcut is not None:
        colours = shortcut.weight[:3].clone()
        for colour, (plus, minus, high, low) in enumerate(groups):
            shortcut.weight[[plus, minus, high, low]] = 0
            shortcut.bias[[plus, minus, high, low]] = 0
            shortcut.weight[plus], shortcut.weight[minus] = colours[colour], -colours[colour]
    size = end.conv_norm_out.num_channels // end.conv_norm_out.num_groups
    end.conv_out.weight[:3] = 0
    end.conv_out.bias[:3] = 0
    for colour, (plus, minus, high, low) in enumerate(groups):
        last.conv2.bias[high], last.conv2.bias[low] = _CONSTANT, -_CONSTANT
        spread = math.sqrt(2 * _CONSTANT**2 / size)
        end.conv_out.weight[colour, plus, 1, 1], end.conv_out.weight[colour, minus, 1, 1] = spread, -spread


def _patches(data: Pictures, batch: int, patch: int, seed: int, step: int) -> Tensor:
    """[batch, 3, patch, patch]; half of them lie on the face, half anywhere; each may be mirrored."""
    r, side = np.random.default_rng([seed, step]), data.pictures.shape[1]
    parts = []
    for i, row in enumerate(r.choice(len(data.pictures), batch)):
        if i % 2:
            x, y = np.clip(r.normal((side - patch) / 2, 6, 2) + np.array([0, -2]), 0, side - patch).astype(int)
        else:
            x, y = r.integers(0, side - patch + 1, 2)
        part = data.pictures[row, y : y + patch, x : x + patch]
        parts.append(part[:, ::-1] if r.uniform() < 0.5 else part)
    return as_tensor(np.ascontiguousarray(np.stack(parts)))


def vae_stage(vae: AutoencoderKL, data: Pictures, steps: int, batch: int, patch: int, seed: int) -> Stage:
    """Trains on patches of `patch` pixels, half of them centred on the face, where details are small."""
    side = data.pictures.shape[1]  # of the whole pictures, which the divergence is of
    start_as_thumbnail(vae)
    nn.init.constant_(vae.quant_conv.bias[vae.config.latent_channels :], _FIRST_LOG_VARIANCE)

    def losses(step: int) -> Losses:
        pictures = _patches(data, batch, patch, seed, step)
        with device.autocast():
            posterior = vae.encode(pictures).latent_dist
            made = vae.decode(posterior.sample()).sample
        kl = posterior.kl().float().mean() / (patch / side) ** 2
        return {"reconstruction": reconstruction_loss(made.float(), pictures), "kl": _KL_WEIGHT * kl}

    return Stage("vae", nn.ModuleDict({"vae": vae}), losses, steps, learning_rate=4e-4, warm_up=300, seed=seed)


def decoder_stage(vae: AutoencoderKL, data: Pictures, steps: int, batch: int, patch: int, seed: int) -> Stage:
    """The decoder goes on alone: latents stay what they are, so the denoiser may learn them at the same time.

    It reads latents with a little noise, as those of a denoiser are never exact. `vae`: normalised, its encoder frozen.
    """
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)

    def losses(step: int) -> Losses:
        pictures = _patches(data, batch, patch, seed, step)
        with device.autocast():
            with torch.no_grad():
                latents = vae.encode(pictures).latent_dist.mean
                latents = latents + _LATENT_NOISE * torch.randn_like(latents)
            made = vae.decode(latents).sample
        return {"reconstruction": reconstruction_loss(made.float(), pictures)}

    return Stage("decoder", nn.ModuleDict({"decoder": vae.decoder}), losses, steps, learning_rate=4e-4, seed=seed)


@torch.no_grad()
def encode_all(vae: AutoencoderKL, pictures: NDArray[np.uint8], batch: int = 32) -> NDArray[np.float16]:
    """Latent means of all pictures: [n, channels, latent height, latent width]."""
    parts = []
    for i in range(0, len(pictures), batch):
        with device.autocast():
            mean = vae.encode(as_tensor(pictures[i : i + batch])).latent_dist.mean
        parts.append(device.array(mean.half()))
    return np.concatenate(parts)


class Latents:
    """Latents of a set of pictures, encoded when first asked for; each as often in a row as there are `people` in it.

    One by one: rounding in bfloat16 differs with the number of pictures in a call, and a run that was resumed meets other numbers.
    """

    def __init__(self, vae: AutoencoderKL, pictures: NDArray[np.uint8], people: int = 1) -> None:
        self.vae, self.pictures, self.people = vae, pictures, people
        self._known: dict[int, NDArray[np.float16]] = {}

    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor:
        """[rows, channels, latent height, latent width], FP32."""
        rows = rows // self.people
        missing = sorted({int(row) for row in rows} - self._known.keys())
        if missing:
            self._known.update(zip(missing, encode_all(self.vae, self.pictures[missing], batch=1), strict=True))
        return device.tensor(np.stack([self._known[int(row)] for row in rows]).astype(np.float32))

    def __len__(self) -> int:
        return len(self.pictures) * self.people


def normalise_latents(vae: AutoencoderKL, pictures: NDArray[np.uint8]) -> None:
    """Folds the latents' mean and spread, per channel, into the 1x1 convolutions around them: latents of `pictures` then have mean 0
    and deviation 1 in every channel, and the scaling factor is 1."""
    latents = encode_all(vae, pictures).astype(np.float32)
    mean, spread = device.tensor(latents.mean((0, 2, 3))), device.tensor(latents.std((0, 2, 3)))
    channels = len(mean)
    with torch.no_grad():
        quant, back = vae.quant_conv, vae.post_quant_conv
        quant.weight[:channels] /= spread[:, None, None, None]
        quant.bias[:channels] = (quant.bias[:channels] - mean) / spread
        quant.bias[channels:] -= 2 * spread.log()
        back.bias += back.weight[:, :, 0, 0] @ mean
        back.weight *= spread[None, :, None, None]


@torch.no_grad()
def decode_pictures(vae: AutoencoderKL, latents: Tensor, batch: int = 16) -> NDArray[np.uint8]:
    """Unscaled latents -> RGB [n, h, w, 3], 0-255."""
    parts = [vae.decode(latents[i : i + batch]).sample for i in range(0, len(latents), batch)]
    picture = torch.cat(parts).add(1).mul(127.5).round().clamp(0, 255).byte()
    return np.asarray(device.array(picture.permute(0, 2, 3, 1)), np.uint8)
