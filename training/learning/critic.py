"""Stage `critic`: a small network that reads latents, and through whose features the denoisers are told what in a picture matters.

Squared error counts every number of a latent alike, and eyes, a mouth or a collar are few of them. The critic learns from the latents of
the training pictures who is shown and what; a denoiser's guess of the clean latents then has to look to it as the true ones do: a
perceptual loss in latent space (arXiv 2411.04873), and for the person a loss of identity as PuLID has (arXiv 2404.16022). It
trains, and judges nothing: the judges of an evaluation see decoded pictures and were trained apart from it. The last stage of the
denoiser is told by it too which expression, hat and colours its guess shows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import device
from ..pictures.dataset import PICTURES, Pictures
from .autoencoder import Latents
from .identity import FACTORS, factors_of, margin_loss
from .judges import JUDGED, labels, misread
from .loop import Losses, Stage

_WIDTHS = (48, 96, 128)
_FEATURES = 128
_MOST_NOISE = 0.5
"""Largest noise on the latents it learns from, of their spread: a denoiser's guesses are not clean either."""
_IDENTITY_WEIGHT = 0.5


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(8, after), nn.SiLU())
        self.second = nn.Sequential(nn.Conv2d(after, after, 3, 1, 1), nn.GroupNorm(8, after))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return F.silu(x + self.second(x))


class Critic(nn.Module):
    """Latents [n, channels, side, side] -> maps of three sizes, and an identity vector [n, features], not normalised."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        widths = zip((channels, *_WIDTHS), _WIDTHS, (1, 2, 2), strict=False)
        self.blocks = nn.ModuleList(_Block(before, after, stride) for before, after, stride in widths)
        cells = (side // 4) ** 2
        self.identity = nn.Linear(_WIDTHS[-1] * cells, _FEATURES)
        self.hidden = nn.Sequential(nn.Linear(_WIDTHS[-1] * cells, _FEATURES), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(_FEATURES, len(values)) for name, values in JUDGED.items()})

    def forward(self, latents: Tensor) -> tuple[list[Tensor], Tensor]:
        maps = [latents]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps[1:], self.identity(maps[-1].flatten(1))

    def attributes(self, last: Tensor) -> dict[str, Tensor]:
        """Logits from the smallest map."""
        hidden = self.hidden(last.flatten(1))
        return {name: head(hidden) for name, head in self.heads.items()}

    def difference(self, guess: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """[n], 0 where both look the same: squared distances of unit features, mean of cells and maps, and 1 - cosine of identities;
        and the smallest map of the guess, for `attributes`."""
        with torch.no_grad():
            wanted, person = self(true)
        found, identity = self(guess)
        maps = [
            (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean((1, 2))
            for a, b in zip(found, wanted, strict=True)
        ]
        return torch.stack(maps).mean(0) + _IDENTITY_WEIGHT * _apart(identity, person), found[-1]

    def strangeness(self, guess: Tensor, true: Tensor) -> Tensor:
        """[n], 0 where both show the same person, wherever in the picture: 1 - cosine of identities."""
        with torch.no_grad():
            person = self(true)[1]
        return _apart(self(guess)[1], person)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(a.float(), b.float())


def _shifted(latents: Tensor, r: np.random.Generator) -> Tensor:
    """Moved by up to a cell, the edge repeated."""
    side = latents.shape[-1]
    y, x = r.integers(0, 3, 2)
    return F.pad(latents, (1, 1, 1, 1), mode="replicate")[..., y : y + side, x : x + side]


def critic_stage(critic: Critic, data: Pictures, latents: Latents, steps: int, batch: int, seed: int) -> Stage:
    """Learns the training people, and where the pictures are drawn also their factors and the scenes' attributes."""
    torch.manual_seed(seed)
    centres, head = nn.Embedding(data.identities, _FEATURES), nn.Linear(_FEATURES, FACTORS)
    factors = factors_of(data)
    known = {} if factors is None else labels(data)

    def losses(step: int) -> Losses:
        r = np.random.default_rng([seed, step])
        rows = r.choice(len(latents), batch, replace=batch > len(latents))
        who = device.tensor(rows // PICTURES)
        seen = _shifted(latents[rows], r)
        seen = seen + _MOST_NOISE * torch.rand(batch, 1, 1, 1) * torch.randn_like(seen)
        with device.autocast():
            maps, identity = critic(seen)
            logits = critic.attributes(maps[-1])
        terms = {"margin": 0.3 * margin_loss(identity.float(), centres.weight, who)}
        if factors is not None:
            terms["factors"] = 4.5 * F.mse_loss(head(identity.float()), factors[who])
        for name, classes in known.items():
            terms[name] = 0.3 * misread(logits[name].float(), classes[device.tensor(rows)])
        return terms

    modules = nn.ModuleDict({"critic": critic, "centres": centres, "head": head})
    return Stage("critic", modules, losses, steps, learning_rate=1.5e-3, seed=seed)
