"""Stage `unet`, those that go on with it, and its peers: the denoiser learns latents from text and face, dropping either or both at times.

Dropping both makes standard guidance meaningful, dropping the face alone makes split guidance meaningful, dropping the text
alone lets a face stand without words. The network predicts velocity (arXiv 2202.00512), which is data of the variant's scheduler:
composition, identity and text are decided at the noisiest times, where an error in predicted noise is too small to be felt; 500
steps of noise prediction taught no composition at all. The conditioning face always comes from another picture of the same person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from faceclip_serving.contract.schedules import make_scheduler
from faceclip_serving.contract.variants.sdxl import NANO

from .. import device
from ..networks.conditioning import Conditioner, Faces
from ..pictures.dataset import Pictures
from ..pictures.details import DECODED, WINDOW, Details, enlarged, first_times, middle_times, spread_times
from ..pictures.gatherings import Gatherings
from .autoencoder import Latents
from .critic import Critic
from .loop import Losses, Stage

SIZE = NANO.defaults.height
LATENT_SIDE = SIZE // NANO.latent_scale

NAMED_WEIGHT = 0.15
"""Against the squared error of the velocity, of what a guess is read as; a sum over attributes."""
_DECODED_WEIGHT = 0.5
"""The same, of pixels and edges of decoded guesses."""
_AROUND, _REACH = 0.4, 1.5
"""Weight of what is around a portrait in a wider picture, and how far from it, in cells, it falls off."""
_DECODED = 8
"""One guess of so many is decoded, where whole ones are."""


@dataclass(frozen=True)
class Pace:
    """How a denoiser learns, see `Stage`; the critic's weight is against the squared error of the velocity."""

    learning_rate: float = 1e-3
    warm_up: int = 100
    cool_down: float = 0.25
    average: float = 0.99
    critic_weight: float = 1.0


@dataclass(frozen=True)
class Drops:
    """Probabilities of what a training row shows; the rest shows face and text."""

    face: float = 0.12
    """Text alone; three in ten of these rows keep the face prefix, as `blend_weight` needs."""
    text: float = 0.08
    both: float = 0.1


JOINT, TEXT_ONLY = Drops(), Drops(face=0.9, text=0.0, both=0.1)


@dataclass(frozen=True)
class Lesson:
    """What a denoiser learns from."""

    data: Pictures | Gatherings
    latents: Latents
    """Of `data`, row by row."""
    faces: Faces
    """Those that `faces_of` counts; after those, where there are `lifelike` ones, as many of each person in the same order, or of the
    first."""
    drops: Drops
    batch: int
    critic: Critic | None = None
    """Compares the clean latents that a prediction means with the true ones, the more the less noise there was: a guess from noise is
    a mean of many pictures, and looks like none."""
    lifelike: float = 0.0
    """Share of the faces shown that are lifelike."""
    named: Mapping[str, Tensor] | None = None
    """Classes of `data`, row by row, -1 for none: with a critic, a guess has to be read as what it should show."""
    vae: AutoencoderKL | None = None
    """Decodes guesses of the less noisy half, so that eyes and mouths are told in pixels too, those of the head above all."""
    details: Details | None = None
    """Where eyes and mouths are, row by row: what is learnt above all."""


@dataclass(frozen=True)
class Batch:
    rows: NDArray[np.int64]
    latents: Tensor
    prompts: list[str]
    index: list[int]
    prefixed: list[bool]
    left: list[int] | None = None
    """Of pictures that are wider than a portrait: in which cell the portrait of each row's person begins."""


def draw(lesson: Lesson, r: np.random.Generator) -> Batch:
    """A training batch."""
    drops, data = lesson.drops, lesson.data
    odds = None if lesson.details is None else lesson.details.odds
    rows = r.choice(len(lesson.latents), lesson.batch, replace=lesson.batch > len(lesson.latents), p=odds)
    prompts, index, prefixed = [], [], []
    for row in rows:
        other = int(r.choice(data.faces_of(int(row))))
        drawn = lesson.faces.drawn
        if drawn is not None and r.uniform() < lesson.lifelike and other + drawn < len(lesson.faces.classes):
            other += drawn
        text, dice = data.caption(int(row), r), float(r.uniform())
        if dice < drops.both:
            text, face, prefix = "", -1, False
        elif dice < drops.both + drops.face:
            face, prefix = -1, bool(r.uniform() < 0.3) if drops.face < 0.5 else bool(r.uniform() < 0.1)
        elif dice < drops.both + drops.face + drops.text:
            text, face, prefix = "", int(other), True
        else:
            face, prefix = int(other), True
        prompts.append(text)
        index.append(face)
        prefixed.append(prefix)
    left = [round(data.left(int(row)) * LATENT_SIDE) for row in rows] if isinstance(data, Gatherings) else None
    return Batch(rows, lesson.latents[rows], prompts, index, prefixed, left)


def size_ids(rows: int, height: int = SIZE, width: int = SIZE) -> Tensor:
    """SDXL's size conditioning: [rows, 6]."""
    return torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32).expand(rows, -1)


def predict(unet: UNet2DConditionModel, noisy: Tensor, time: Tensor, embeddings: Tensor, pooled: Tensor) -> Tensor:
    height, width = (NANO.latent_scale * cells for cells in noisy.shape[2:])
    added = {"text_embeds": pooled, "time_ids": size_ids(len(noisy), height, width)}
    prediction: Tensor = unet(noisy, time, embeddings, added_cond_kwargs=added, return_dict=False)[0]
    return prediction


def person_weight(side: int) -> Tensor:
    """[side, side], mean 1: an error counts several times as much where the head and the clothes are as at the edges.

    Backgrounds are most of a picture and hard to draw; without this they are most of what a small network learns.
    """
    x = (torch.arange(side) + 0.5) / side * 2 - 1
    head = torch.exp(-((x[None] / 0.45) ** 4) - ((x[:, None] + 0.05) / 0.65) ** 4)
    body = torch.exp(-((x[None] / 0.7) ** 4) - ((x[:, None] - 0.9) / 0.4) ** 4)
    weight = 1 + 4 * head + 2 * body
    return weight / weight.mean()


def own(values: Tensor, left: Sequence[int] | None) -> Tensor:
    """[n, ..., height, width] -> the part of each row where the portrait of its person is, as wide as high; all where `left` is None."""
    if left is None:
        return values
    side = values.shape[-2]
    return torch.stack([row[..., first : first + side] for row, first in zip(values, left, strict=True)])


def around(width: int, drawn: Batch) -> Tensor:
    """[n, 1, 1, width]: how much an error counts outside of the portrait that a row is learnt from, where it is 0. Little, and the less
    the farther away, since what else is in the picture is said by nobody; where nothing was said, as much as a place does."""
    assert drawn.left is not None
    columns, left = torch.arange(width), torch.tensor(drawn.left)[:, None]
    far = torch.maximum(left - columns, columns - (left + LATENT_SIDE - 1)).clamp(min=0)
    silent = torch.tensor([not prompt and face < 0 for prompt, face in zip(drawn.prompts, drawn.index, strict=True)])[:, None]
    counts = torch.where(silent, _AROUND, _AROUND * torch.exp(-(far / _REACH).square() / 2)) * (far > 0)
    return counts[:, None, None]


def unet_stage(
    name: str,
    unet: UNet2DConditionModel,
    conditioner: Conditioner,
    lessons: Sequence[Lesson],
    steps: int,
    seed: int,
    compiled: bool = False,
    pace: Pace = Pace(),
) -> Stage:
    """Trains what requires gradients of the denoiser and of the conditioner, with one lesson after the other, step by step. `compiled`
    takes minutes first, for each size of pictures, then half the time."""
    person = person_weight(LATENT_SIDE)
    network: UNet2DConditionModel = torch.compile(unet, dynamic=False) if compiled else unet
    alphas = make_scheduler("DDIMScheduler", NANO.scheduler_config).alphas_cumprod.to(torch.get_default_device())

    def losses(step: int) -> Losses:
        lesson = lessons[step % len(lessons)]
        batch, critic, details = lesson.batch, lesson.critic, lesson.details
        drawn = draw(lesson, np.random.default_rng([seed, step]))
        times = spread_times if details is None else middle_times if drawn.left is None else first_times
        time = times(batch)
        weight = person[None, None] if details is None else details.weight(drawn.rows, person)
        noise = torch.randn_like(drawn.latents)
        share = alphas[time][:, None, None, None]
        noisy = share.sqrt() * drawn.latents + (1 - share).sqrt() * noise
        with device.autocast(), device.attention():
            embeddings, pooled = conditioner(drawn.prompts, lesson.faces, drawn.index, drawn.prefixed)
            predicted = predict(network, noisy, time, embeddings, pooled).float()
        velocity = share.sqrt() * noise - (1 - share).sqrt() * drawn.latents
        missed = (predicted - velocity).square()
        terms = {"velocity": (own(missed, drawn.left) * weight).mean()}
        if drawn.left is not None:
            width = missed.shape[-1]
            terms["velocity"] = terms["velocity"] + (missed * around(width, drawn)).mean() * width / LATENT_SIDE
        guess = own(share.sqrt() * noisy - (1 - share).sqrt() * predicted, drawn.left)
        true = own(drawn.latents, drawn.left)
        if critic is not None:
            with device.autocast():
                different, shown = critic.difference(guess, true)
                read = {} if lesson.named is None else critic.attributes(shown)
            terms["critic"] = pace.critic_weight * (share.flatten() * different).mean()
            if lesson.named is not None:
                terms["named"] = NAMED_WEIGHT * (share.flatten() * misnamed(read, lesson.named, drawn.rows)).mean()
        if lesson.vae is not None:
            if details is None:
                clear, window = time.argsort()[: batch // 2 : _DECODED // 2], (slice(None), slice(None))
            else:
                clear, window = time.argsort()[: max(1, int(DECODED * batch))], WINDOW
            where = (slice(None), slice(None), *window)
            unlike = _decoded_apart(
                lesson.vae, guess[clear][where], true[clear][where], weight.expand(batch, -1, -1, -1)[clear][where]
            )
            terms["decoded"] = _DECODED_WEIGHT * (share.flatten()[clear] * unlike).mean()
        return terms

    modules = nn.ModuleDict({"unet": unet, "conditioner": conditioner})
    rates = (pace.learning_rate, pace.warm_up, pace.cool_down, pace.average)
    return Stage(name, modules, losses, steps, *rates, seed)


def misnamed(read: Mapping[str, Tensor], named: Mapping[str, Tensor], rows: NDArray[np.int64]) -> Tensor:
    """[n]: cross-entropies of what was read in guesses and what the pictures of these `rows` show, summed over attributes."""
    wanted = {name: classes[device.tensor(rows)] for name, classes in named.items()}
    apart = [F.cross_entropy(read[name].float(), of, ignore_index=-1, reduction="none") for name, of in wanted.items()]
    return torch.stack(apart).sum(0)


def _decoded_apart(vae: AutoencoderKL, guess: Tensor, true: Tensor, weight: Tensor) -> Tensor:
    """[n]: how much the decoded pictures differ, mean size of pixels and of edges; by the `weight` [n, 1, h, w] of cells."""
    with device.autocast():
        made = vae.decode(guess).sample.float()
        with torch.no_grad():
            wanted = vae.decode(true).sample.float()
    off, weight = made - wanted, enlarged(weight, NANO.latent_scale)
    edges = off.diff(dim=-1).abs()[..., :-1, :] + off.diff(dim=-2).abs()[..., :-1]
    apart: Tensor = (off.abs() * weight).mean((1, 2, 3)) + (edges * weight[..., :-1, :-1]).mean((1, 2, 3))
    return apart
