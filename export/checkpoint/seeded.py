"""Seeded stand-in weights: every tensor's values follow from its state-dict name and shape alone.

Two implementations filled by the same names hold the same bits, so they can be compared without a checkpoint, and a big network
can be built where no checkpoint fits. Knows nothing of what the names belong to: any torch module can be filled.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .deferred import Fetch, fill

_CHUNK = 1 << 22
"""Values drawn at a time: a generator continues its stream, so pieces give the same bits as one draw, in 32 MiB."""

_HUGE = 1 << 23
"""Values from which on only the first piece is drawn, and the others are that piece, turned: to draw billions takes minutes."""
_TURN = 1_000_003
"""By how much each piece is turned against the one before; a prime, so that rows of no matrix meet themselves."""


def seeded_tensor(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """The stand-in for tensor `name`: float32, or int64 zeros for a `num_batches_tracked` counter."""
    dtype = np.int64 if _is_counter(name) else np.float32
    values = np.empty(shape, dtype)
    _fill(name, shape, values.reshape(-1))
    return values


def fill_seeded(module: nn.Module, prefix: str = "") -> None:
    """Overwrites every tensor of `module`, in place, by its stand-in, named `prefix` + its state-dict name."""
    for name, tensor in module.state_dict().items():
        if tensor.is_meta:
            raise ValueError(
                f"tensor '{name}': expected memory to fill, got the meta device; call module.to_empty(device='cpu')"
            )
        full_name = prefix + name
        shape = tuple(tensor.shape)
        if tensor.dtype == torch.float32 and tensor.is_contiguous() and tensor.device.type == "cpu":
            _fill(full_name, shape, tensor.detach().numpy().reshape(-1))
        else:
            tensor.copy_(torch.from_numpy(seeded_tensor(full_name, shape)))


def stand_in(module: nn.Module, only: str = "", defer_large: bool = False) -> None:
    """Gives a module on the meta device memory and stand-ins, in place; tensors whose names do not begin with `only` get none.

    With `defer_large`, large parameters are drawn when they are used (see `deferred`).
    """

    def drawn(name: str, shape: tuple[int, ...]) -> Fetch:
        return lambda: torch.from_numpy(seeded_tensor(name, shape))

    wanted = {name: tensor for name, tensor in module.state_dict().items() if name.startswith(only)}
    fill(module, {name: drawn(name, tuple(tensor.shape)) for name, tensor in wanted.items()}, defer_large)


def _fill(name: str, shape: tuple[int, ...], flat: NDArray[Any]) -> None:
    """Writes the values of `name` into `flat`, the tensor's memory as one axis. Computed in float64, rounded once."""
    if _is_counter(name):
        flat[:] = 0
        return
    leaf = name.rsplit(".", 1)[-1]
    generator = _generator(name)
    for start in range(0, flat.size, _CHUNK):
        piece = flat[start : start + _CHUNK]
        if start and flat.size >= _HUGE:
            piece[:] = np.roll(flat[:_CHUNK], start // _CHUNK * _TURN)[: piece.size]
            continue
        piece[:] = _scaled(leaf, shape, generator.standard_normal(piece.size))


def _scaled(leaf: str, shape: tuple[int, ...], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard normal noise brought to the range that a tensor of this kind has in a trained network. Alters `noise`."""
    if leaf == "running_var":
        return np.abs(noise, out=noise) + 0.5
    if leaf in ("gamma_v", "gamma_l"):
        return noise * 0.1 + 0.5
    if leaf == "weight" and len(shape) == 1:
        return noise * 0.1 + 1.0
    if len(shape) >= 2:
        noise /= math.sqrt(math.prod(shape[1:]))
        return noise
    return noise * 0.1


def _is_counter(name: str) -> bool:
    return name.rsplit(".", 1)[-1] == "num_batches_tracked"


def _generator(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
