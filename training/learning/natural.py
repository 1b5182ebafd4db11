"""Stage `natural`: the face encoder learns to read a natural face as the drawn one of the same person, and drawn faces as before.

A copy of the trained encoder is shown lifelike portraits, roughened as cameras roughen, and has to give the features that the encoder
gives for the plain drawn portrait of that person; beside them it is shown drawn crops, and the black picture that stands for nobody, for
which it keeps the features that they have.
What it cannot tell, it learns the mean of: an unfamiliar face falls back to a face that the denoiser knows. The fusers and the denoiser
stay as they are; what they make of the features is part of the loss.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from export.networks.faceclip.face_vit import FaceTransformer
from export.outputs import replacing

from .. import device
from ..networks.conditioning import Conditioner, Faces, no_face
from ..pictures.crops import aligned_crop, encoder_view
from ..pictures.dataset import PICTURES, SPLITS, VIEW, Pictures
from ..world.lifelike import lifelike
from ..world.people import sample_identity, sample_scene
from ..world.render import render
from .identity import face_batch, face_features
from .loop import Losses, Stage

PORTRAITS = 4
"""Lifelike portraits of each person."""
_LEARNING_RATE = 6e-4
_DRAWN_WEIGHT = 3.0
"""What is said of drawn people shall stay; against what is learnt of natural ones."""
_PROMPTS = 8
"""Of a step, each with a lifelike and with a drawn face."""


@dataclass(frozen=True)
class Natural:
    """Aligned crops of a split's people."""

    plain: NDArray[np.uint8]
    """[identities, VIEW, VIEW, 3]: drawn, from the front, without a hat, in soft light."""
    lifelike: NDArray[np.uint8]
    """[identities, PORTRAITS, VIEW, VIEW, 3]."""


def _draw(number: int) -> NDArray[np.uint8]:
    person, scene = sample_identity(number), sample_scene("canonical", number, pose=0.0)
    plain = render(person, replace(scene, hat="none", expression="neutral", light="soft", time="day"), 256)
    shots = [plain, *(lifelike(person, k) for k in range(PORTRAITS))]
    return np.stack([encoder_view(aligned_crop(shot.image, shot.landmarks), VIEW) for shot in shots])


def build_natural(folder: Path, split: str, identities: int, processes: int = 2) -> Natural:
    """Draws a split into `folder`, or loads what is already there."""
    target = folder / f"natural-{split}-{identities}.npz"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        first = SPLITS[split]
        with ProcessPoolExecutor(processes) as pool:
            crops = np.stack(list(pool.map(_draw, range(first, first + identities), chunksize=8)))
        with replacing(target) as partial:
            np.savez(partial, crops=crops)
    with np.load(target) as arrays:
        crops = arrays["crops"]
    return Natural(crops[:, 0], crops[:, 1:])


def photographed(crops: NDArray[np.uint8], r: np.random.Generator) -> Tensor:
    """[n, VIEW, VIEW, 3] 0-255 -> [n, 3, VIEW, VIEW] in [0, 1]: bent, badly aligned, in another light, through another lens."""
    x = device.tensor(crops).permute(0, 3, 1, 2).float() / 255
    n, side = len(x), x.shape[-1]

    def drawn(low: float, high: float, *shape: int) -> Tensor:
        return device.tensor(r.uniform(low, high, (n, *shape)).astype(np.float32))

    mirrored = device.tensor(r.uniform(size=n) < 0.5)
    x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    angle, zoom, wide = drawn(-0.12, 0.12), drawn(0.88, 1.12), drawn(0.88, 1.12)
    theta = torch.stack(
        [
            torch.stack([angle.cos() * zoom * wide, -angle.sin() * zoom, drawn(-0.08, 0.08)], 1),
            torch.stack([angle.sin() * zoom, angle.cos() * zoom, drawn(-0.08, 0.08)], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    bend = device.tensor(r.normal(0, 0.025, (n, 2, 5, 5)).astype(np.float32))
    grid = grid + F.interpolate(bend, size=(side, side), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    padding = "zeros" if r.uniform() < 0.3 else "border"
    x = F.grid_sample(x, grid, padding_mode=padding, align_corners=False)
    x = _softened(x, r)
    # light: exposure, contrast, the lamp's colour, and a slope of light over the picture
    x = x.clamp(0, 1) ** drawn(0.75, 1.35, 1, 1, 1)
    middle = x.mean((1, 2, 3), keepdim=True)
    x = (x - middle) * drawn(0.75, 1.2, 1, 1, 1) + middle
    x = x * drawn(0.78, 1.15, 1, 1, 1) * drawn(0.93, 1.07, 3, 1, 1) + drawn(-0.04, 0.04, 1, 1, 1)
    ramp = torch.linspace(-1, 1, side)
    x = x * (1 + drawn(-0.2, 0.2, 1, 1, 1) * ramp[:, None] + drawn(-0.25, 0.25, 1, 1, 1) * ramp)
    grey = x.mean(1, keepdim=True).expand_as(x)
    faded = torch.where(drawn(0, 1, 1, 1, 1) < 0.06, torch.ones(()), drawn(0, 0.3, 1, 1, 1))
    x = x + (grey - x) * faded
    x = x + drawn(0, 0.04, 1, 1, 1) * torch.randn_like(x)
    for i in np.flatnonzero(r.uniform(size=n) < 0.15):
        height, width = r.integers(10, 40, 2)
        top, left = r.integers(0, side - height), r.integers(0, side - width)
        x[i, :, top : top + height, left : left + width] = device.tensor(r.uniform(0, 1, (3, 1, 1)).astype(np.float32))
    return x.clamp(0, 1)


def _softened(x: Tensor, r: np.random.Generator) -> Tensor:
    """Parts of the batch out of focus, or from a small picture."""
    side = x.shape[-1]
    for part in np.array_split(r.permutation(len(x)), 4)[1:]:
        small = int(side * r.uniform(0.25, 0.9))
        shrunk = F.interpolate(x[part], size=(small, small), mode="area")
        x[part] = F.interpolate(shrunk, size=(side, side), mode="bilinear", align_corners=False)
    return x


def natural_stage(
    vit: FaceTransformer,
    conditioner: Conditioner,
    data: Pictures,
    faces: Faces,
    natural: Natural,
    steps: int,
    batch: int,
    seed: int,
) -> Stage:
    """Trains `vit`; half of a batch is lifelike. `faces`: what it says now of the crops of `data`; `conditioner`: whose fusers read it."""
    half = batch // 2
    data.require("natural", max(half, -(-batch // PICTURES)))
    plain = Faces(*face_features(vit, natural.plain))
    nobody, spread = no_face(vit, VIEW), plain.patches.float().std()
    vit.requires_grad_(True)
    for fixed in (vit.mask_token, vit.pos_embed):  # never used; read by the fusers as well
        fixed.requires_grad_(False)

    def losses(step: int) -> Losses:
        r = np.random.default_rng([seed, step])
        who = r.choice(data.identities, half, replace=False)
        rows = r.choice(len(data.crops), batch - half, replace=False)
        seen = natural.lifelike[who, r.integers(0, PORTRAITS, half)]
        drawn = face_batch(data.crops[rows], r)
        drawn[::2] = device.tensor(data.crops[rows[::2]]).permute(0, 3, 1, 2).float() / 255
        shown = torch.cat([photographed(seen, r), drawn, torch.zeros_like(drawn[:1])])
        wanted = Faces(
            torch.cat([plain.classes[device.tensor(who)], faces.classes[device.tensor(rows)]]),
            torch.cat([plain.patches[device.tensor(who)], faces.patches[device.tensor(rows)]]).float(),
        )
        with device.autocast():
            feature, patches = vit(shown)
        said = Faces(F.normalize(feature.float()), patches.float())
        found = Faces(said.classes[:-1], said.patches[:-1])
        prompts = [data.caption(int(row), r) for row in rows[:_PROMPTS]] * 2
        index, prefixed = [*range(len(prompts) // 2), *range(half, half + len(prompts) // 2)], [True] * len(prompts)
        with device.autocast(), device.attention():
            made = conditioner(prompts, found, index, prefixed)[0].float()
            with torch.no_grad():
                meant = conditioner(prompts, wanted, index, prefixed)[0].float()
        apart = 1 - (found.classes * wanted.classes).sum(1)
        return {
            "natural": apart[:half].mean(),
            "drawn": _DRAWN_WEIGHT * apart[half:].mean(),
            "nobody": 1
            - (said.classes[-1] * nobody[0][0, 0]).sum()
            + F.mse_loss(said.patches[-1] / spread, nobody[1][0, 0] / spread),
            "patches": F.mse_loss(found.patches / spread, wanted.patches / spread),
            "embeddings": F.mse_loss(made, meant) / meant.var(),
        }

    return Stage("natural", nn.ModuleDict({"vit": vit}), losses, steps, _LEARNING_RATE, warm_up=100, seed=seed)
