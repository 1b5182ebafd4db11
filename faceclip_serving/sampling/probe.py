"""A scheduler of diffusers as numbers, found by asking it: each step is fed unit vectors, and what comes out is that step's matrix.

Every scheduler that may be chosen is linear in the sample, the prediction, the noise, and what it remembers of earlier steps. So
no formula of theirs is written here, and none can differ. What a scheduler remembers are its attributes that have the sample's
shape: before each step they are replaced by unit vectors as well, which keeps a matrix as small as that memory. Further columns
are at random: where they do not follow the matrix, the step is not linear, and the scheduler is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ..contract.tensors import Array

_WIDTH = 16
_SHAPE = (1, 1, 1, _WIDTH)
"""Of a probe. Its cells: unit vectors, then zeros, which tell the noise, then values at random."""
_ZEROS = slice(7, 11)
_RANDOM = slice(11, _WIDTH)
_LARGE = 30.0
"""Spread of the values at random: more than any clipping leaves alone."""
_ROUNDING = 1e-4
"""Of FP32, relative to the largest term: from here on a difference is none of rounding."""

Slot = tuple[str, int | None]
"""Where a scheduler remembers something: an attribute, and the place in it where it is a list."""
_SAMPLE: Slot = ("", None)


@dataclass(frozen=True, eq=False)
class Schedule:
    """What a sampling run is made of, as numbers.

    A picture is a few registers, each of the latents' shape; the first is the latents. Its step k gives registers
    `steps[k] @ [registers, prediction, noise]`; there is no noise where no step draws any.
    """

    timesteps: tuple[float, ...]
    input_scales: tuple[float, ...]
    """What the latents are multiplied by for the denoiser, at each step."""
    initial_scale: float
    """What noise of variance one is multiplied by to begin with."""
    steps: Array
    """FP32 [steps, registers, registers + 1 or 2]."""
    draws: tuple[bool, ...]
    """Whether a step takes fresh noise from the picture's generator."""
    noised: Array | None = None
    """FP32 [steps, 2], of a run that starts from a picture: factors of its latents and of noise, whose sum is as noisy as what a step
    begins with."""

    @property
    def finite(self) -> bool:
        numbers = [*self.input_scales, self.initial_scale]
        return all(np.isfinite(each).all() for each in (numbers, self.steps, [] if self.noised is None else self.noised))


def probed(scheduler: Any, begin: int | None = None) -> Schedule:
    """The schedule of a scheduler whose timesteps are set; it is used up. Raises what it raises, `ValueError` if it is not linear.

    `begin`: the first step of a run that starts from a picture; None: it starts from noise.
    """
    generator = torch.Generator().manual_seed(0)
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    arguments = {"generator": generator} if takes_generator else {}
    scale = getattr(scheduler, "scale_model_input", lambda sample, timestep: sample)  # flow matching has no such thing
    random = np.random.default_rng(0)
    scales, steps, draws, noised = [], [], [], []
    remembered: dict[Slot, torch.Tensor] = {}
    timesteps = scheduler.timesteps
    if begin is not None:
        timesteps = timesteps[begin * scheduler.order :]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin * scheduler.order)
    for timestep in timesteps:
        if begin is not None:  # first, as diffusers' pipelines do: a scheduler may know by that at which step it is
            noised.append(_noise_factors(scheduler, timestep[None], random))
        scales.append(_factor(partial(scale, timestep=timestep)))
        before = [_SAMPLE, *remembered]
        fed = _fed(len(before) + 1, random)
        *registers, prediction = (torch.from_numpy(row.reshape(_SHAPE)) for row in fed.astype(np.float32))
        for slot, tensor in zip(before[1:], registers[1:], strict=True):
            _put(scheduler, slot, tensor)
        was = generator.get_state()
        sample = scheduler.step(prediction, timestep, registers[0], **arguments, return_dict=False)[0]
        noise, drew = _drawn(was, generator)
        remembered = _remembered(scheduler)
        rows = {_SAMPLE: sample, **remembered}
        steps.append((before, list(rows), _matrix(fed, noise, np.stack([_values(each) for each in rows.values()]))))
        draws.append(drew)
    initial = float(getattr(scheduler, "init_noise_sigma", 1.0))
    return Schedule(
        tuple(map(float, timesteps)),
        tuple(scales),
        initial,
        _aligned(steps, any(draws)),
        tuple(draws),
        None if begin is None else np.array(noised, np.float32),
    )


def _values(tensor: torch.Tensor) -> Array:
    return tensor.reshape(_WIDTH).numpy().astype(np.float64)


def _factor(scale: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """What `scale` multiplies by."""
    fed = np.linspace(-_LARGE, 1.0, _WIDTH, dtype=np.float32)
    found = _values(scale(torch.from_numpy(fed.reshape(_SHAPE))))
    if (np.abs(found - found[-1] * fed) > _ROUNDING * np.abs(found)).any():
        raise ValueError("the scale of the denoiser's input depends on the input")
    return float(found[-1])


def _noise_factors(scheduler: Any, timestep: torch.Tensor, random: np.random.Generator) -> tuple[float, float]:
    """What the scheduler multiplies a picture and noise by, to add them at a timestep [1]."""
    fed = _fed(2, random)
    image, noise = (torch.from_numpy(row.reshape(_SHAPE)) for row in fed.astype(np.float32))
    if hasattr(scheduler, "scale_noise"):  # of flow matching
        found = _values(scheduler.scale_noise(image, timestep, noise))
    else:
        found = _values(scheduler.add_noise(image, noise, timestep))
    factors = found[:2]
    if (np.abs(found - factors @ fed) > _ROUNDING * (np.abs(factors) @ np.abs(fed))).any():
        raise ValueError("the noise that it adds is not linear in the picture and the noise")
    return float(factors[0]), float(factors[1])


def _fed(count: int, random: np.random.Generator) -> Array:
    """What `count` inputs of a step are fed [count, width]."""
    if count > _ZEROS.start:
        raise ValueError(f"it remembers {count - 2} tensors, {_ZEROS.start - 2} at most were expected")
    fed = np.eye(count, _WIDTH)
    fed[:, _RANDOM] = _LARGE * random.standard_normal((count, _WIDTH - _RANDOM.start))
    return fed.astype(np.float32).astype(np.float64)


def _remembered(scheduler: Any) -> dict[Slot, torch.Tensor]:
    """What the scheduler holds of the sample's shape."""
    found: dict[Slot, torch.Tensor] = {}
    for name, value in vars(scheduler).items():
        for index, each in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(each, torch.Tensor) and each.shape == _SHAPE:
                found[name, index] = each
    return found


def _put(scheduler: Any, slot: Slot, tensor: torch.Tensor) -> None:
    name, index = slot
    if index is None:
        setattr(scheduler, name, tensor)
    else:
        getattr(scheduler, name)[index] = tensor


def _drawn(was: torch.Tensor, generator: torch.Generator) -> tuple[Array, bool]:
    """The noise [width] that a step has drawn, and whether it has."""
    if torch.equal(was, generator.get_state()):
        return np.zeros(_WIDTH), False
    again = torch.Generator()
    again.set_state(was)
    noise = torch.randn(_SHAPE, generator=again)
    if not torch.equal(again.get_state(), generator.get_state()):
        raise ValueError("a step draws other noise than one value for each of the sample's")
    return _values(noise), True


def _matrix(fed: Array, noise: Array, found: Array) -> Array:
    """[rows, inputs + 1] such that `found` is that times `fed` and the noise."""
    count = len(fed)
    quiet = noise[_ZEROS]
    of_noise = found[:, _ZEROS] @ quiet / (quiet @ quiet) if quiet.any() else np.zeros(len(found))
    with np.errstate(invalid="ignore"):  # what is not finite is found by who asks
        part = np.outer(of_noise, noise)
        matrix = found[:, :count] - part[:, :count]
        matrix[np.abs(matrix) <= 1e-6 * np.abs(part[:, :count])] = 0.0  # rounding of the noise
        largest = np.abs(matrix) @ np.abs(fed) + np.abs(part)
        differs = np.abs(found - matrix @ fed - part) > _ROUNDING * largest
    if differs.any():
        raise ValueError("its steps are not linear in the sample, the prediction and the noise")
    return np.column_stack([matrix, of_noise])


def _aligned(steps: Sequence[tuple[Sequence[Slot], Sequence[Slot], Array]], noisy: bool) -> Array:
    """One array of all steps' matrices, each given with its inputs and rows; without what no later step reads."""
    wanted: set[Slot] = {_SAMPLE}
    kept: dict[Slot, None] = {_SAMPLE: None}
    read: list[Mapping[tuple[Slot, Slot | str], float]] = []
    for before, rows, matrix in reversed(steps):
        columns: list[Slot | str] = [*before, "prediction", "noise"]
        entries = {
            (row, column): float(matrix[i, j])
            for i, row in enumerate(rows)
            if row in wanted
            for j, column in enumerate(columns)
            if matrix[i, j] != 0
        }
        wanted = {_SAMPLE} | {column for _, column in entries if isinstance(column, tuple)}
        kept.update(dict.fromkeys(sorted(wanted, key=str)))
        read.append(entries)
    registers = list(kept)
    columns = [*registers, "prediction", *(["noise"] if noisy else [])]
    return np.array(
        [[[entries.get((row, column), 0.0) for column in columns] for row in registers] for entries in reversed(read)],
        np.float32,
    )
