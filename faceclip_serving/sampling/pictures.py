"""Sampling: pictures on their way from noise to latents, advanced together by a denoiser that takes rows of any of them.

The unit is one `Picture`: its latents, its own scheduler and generator, its guidance. A tick picks pictures of one latent size,
calls the denoiser once for all their rows, and advances each by one step; so requests with different step counts, schedulers
and guidance share every call, and may join and leave between ticks. The denoiser is any callable; nothing here knows of Triton.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..contract.job import Job
from ..contract.tensors import Array
from ..contract.variant import Variant
from .guidance import IDENTITY, PREFIXED_TEXT, TEXT, UNCONDITIONAL, Chain, blend, chain_at, combine, weighted_sum
from .schedule import start_schedule, step_arguments
from .step_cache import StepCache

Denoise = Callable[[Mapping[str, Array]], Array]
"""The denoiser's inputs, named as in its signature -> noise_pred [rows, channels, height, width]."""


@dataclass(eq=False)
class Picture:
    """One picture between noise and latents."""

    latents: torch.Tensor
    """FP32 [1, channels, height, width]."""
    scheduler: Any
    step_arguments: dict[str, Any]
    chains: tuple[Chain, ...]
    """Guidance of each step."""
    constants: Mapping[str, Mapping[str, Array]]
    """Branch -> the denoiser inputs that do not change between steps, each [1, ...]."""
    cache: StepCache = field(default_factory=lambda: StepCache(0.0))
    step: int = 0
    last_tick: int = field(default=-1)

    @property
    def done(self) -> bool:
        return self.step >= len(self.chains)

    @property
    def chain(self) -> Chain:
        return self.chains[self.step]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.latents.shape)

    def model_input(self) -> tuple[Array, float]:
        """The scaled latents [1, ...] and the timestep of the current step."""
        return self._scaled().numpy(), float(self.scheduler.timesteps[self.step])

    def advance(self, predictions: Array) -> None:
        """Takes one step, given the predictions of the current chain's branches [branches, channels, height, width].

        Takes those after it as well that need no new prediction, see `step_cache`.
        """
        noise = combine([torch.from_numpy(row)[None] for row in predictions], self.chain.scales)
        if self.cache.threshold > 0:
            self.cache.remember(self._scaled(), noise, self.chain)
        self._take(noise)
        while self.cache.threshold > 0 and not self.done:
            again = self.cache.recall(self._scaled(), self.step, len(self.chains), self.chain)
            if again is None:
                break
            self._take(again)

    def _scaled(self) -> torch.Tensor:
        scale = getattr(self.scheduler, "scale_model_input", None)  # flow matching has no such thing
        return self.latents if scale is None else scale(self.latents, self.scheduler.timesteps[self.step])

    def _take(self, noise: torch.Tensor) -> None:
        timestep = self.scheduler.timesteps[self.step]
        self.latents = self.scheduler.step(noise, timestep, self.latents, **self.step_arguments, return_dict=False)[0]
        self.step += 1


def branch_conditioning(job: Job, conditioning: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Branch -> conditioning tensors [1, ...], with references weighted and the identity blended as the request says."""

    def rows(role: str) -> list[dict[str, Array]]:
        return [{name: array[i : i + 1] for name, array in conditioning.items()} for i in job.rows[role]]

    branches = {branch: rows(branch)[0] for branch in (UNCONDITIONAL, TEXT) if branch in job.rows}
    if IDENTITY in job.rows:
        faces = rows(IDENTITY)
        identity = {name: weighted_sum([face[name] for face in faces], job.face_weights) for name in conditioning}
        if PREFIXED_TEXT in job.rows:
            plain = rows(PREFIXED_TEXT)[0]
            identity = {name: blend(identity[name], plain[name], job.request.blend_weight) for name in conditioning}
        branches[IDENTITY] = identity
    return {b: {name: array.astype(np.float32, copy=False) for name, array in c.items()} for b, c in branches.items()}


def start_pictures(variant: Variant, job: Job, conditioning: Mapping[str, Array]) -> list[Picture]:
    """The pictures of a job, at pure noise. Raises `InvalidRequest` where the schedule cannot be run."""
    request = job.request
    extras = variant.extras_for(request.height, request.width)
    constants = {branch: {**tensors, **extras} for branch, tensors in branch_conditioning(job, conditioning).items()}
    chains = tuple(chain_at(request, bool(job.face_weights), step) for step in range(request.num_inference_steps))
    shape = (1, variant.latent_channels, request.height // variant.latent_scale, request.width // variant.latent_scale)
    pictures = []
    for seed in request.seeds:
        scheduler = start_schedule(variant, request)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(shape, generator=generator) * getattr(scheduler, "init_noise_sigma", 1.0)
        arguments = step_arguments(scheduler, generator)
        pictures.append(Picture(noise, scheduler, arguments, chains, constants, StepCache(request.step_cache)))
    return pictures


def select(pictures: Iterable[Picture], max_rows: int) -> list[Picture]:
    """The pictures of the next tick: the one that has waited longest, whole, and others of its size while their rows fit.

    Pictures that were served go to the back of the order, so sizes alternate and none starves.
    """
    waiting = sorted((p for p in pictures if not p.done), key=lambda picture: picture.last_tick)
    chosen: list[Picture] = []
    rows = 0
    for picture in waiting:
        needed = len(picture.chain.branches)
        if picture.shape == waiting[0].shape and (not chosen or rows + needed <= max_rows):
            chosen.append(picture)
            rows += needed
    return chosen


class Batch:
    """Builds denoiser inputs. Keeps the conditioning of the last tick, which seldom changes from one tick to the next."""

    def __init__(self) -> None:
        self._members: list[tuple[Picture, tuple[str, ...]]] = []
        self._constants: dict[str, Array] = {}

    def inputs(self, pictures: Sequence[Picture]) -> dict[str, Array]:
        """All inputs of one denoiser call; rows follow the pictures' order and, within one, its chain's branches."""
        members = [(picture, picture.chain.branches) for picture in pictures]
        if not (
            len(members) == len(self._members)
            and all(a[0] is b[0] and a[1] == b[1] for a, b in zip(members, self._members, strict=True))
        ):
            rows = [picture.constants[branch] for picture, branches in members for branch in branches]
            self._constants = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
            self._members = members
        latents, timesteps = [], []
        for picture, branches in members:
            scaled, timestep = picture.model_input()
            latents += [scaled] * len(branches)
            timesteps += [[timestep]] * len(branches)
        return {"latents": np.concatenate(latents), "timestep": np.array(timesteps, np.float32), **self._constants}

    def forget(self) -> None:
        """Drops references to pictures that are gone."""
        self._members, self._constants = [], {}


def advance(pictures: Sequence[Picture], noise_pred: Array, tick: int) -> None:
    """Gives each picture its rows of the denoiser's output, and notes that tick number `tick` served it."""
    first = 0
    for picture in pictures:
        last = first + len(picture.chain.branches)
        picture.advance(noise_pred[first:last])
        picture.last_tick = tick
        first = last


def in_calls(denoise: Denoise, max_rows: int) -> Denoise:
    """A denoiser of any number of rows, by calls of at most `max_rows`.

    One picture may need more rows than a call may have: two with guidance, three with split guidance.
    """

    def denoise_all(inputs: Mapping[str, Array]) -> Array:
        rows = len(inputs["timestep"])
        if rows <= max_rows:
            return denoise(inputs)
        parts = ({name: array[i : i + max_rows] for name, array in inputs.items()} for i in range(0, rows, max_rows))
        return np.concatenate([denoise(part) for part in parts])

    return denoise_all


def sample(pictures: Sequence[Picture], denoise: Denoise, max_rows: int) -> Array:
    """Runs pictures of one size to their end in this thread; latents [pictures, channels, height, width]."""
    denoise = in_calls(denoise, max_rows)
    batch, tick = Batch(), 0
    while chosen := select(pictures, max_rows):
        advance(chosen, denoise(batch.inputs(chosen)), tick)
        tick += 1
    return finished_latents(pictures)


def finished_latents(pictures: Sequence[Picture]) -> Array:
    """Latents [pictures, channels, height, width] of pictures of one size."""
    return np.concatenate([picture.latents.numpy() for picture in pictures])
