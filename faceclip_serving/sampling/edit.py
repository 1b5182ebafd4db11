"""A picture that starts from another one, or is drawn within a mask of it: diffusers' image to image and inpainting, as it samples them.

What is drawn from the picture's generator, and in which order, is as in diffusers, so that a seed means the same picture there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..contract.tensors import Array
from .picture import Picture


@dataclass(frozen=True, eq=False)
class Source:
    """What pictures start from, as the VAE's encoder gives it: a normal distribution of latents, [1, channels, height, width]."""

    mean: Array
    std: Array
    mask: Array | None = None
    """FP32 [1, 1, height, width]: 1 where the picture is drawn anew, 0 where it stays; None: all of it is drawn anew."""
    from_noise: bool = False
    """Whether the latents are noise to begin with, and the source is what stays outside the mask alone."""


class Edited(Picture):
    """A `Picture` that starts from a source, whose schedule says how noisy the source is at each step."""

    def __init__(self, *args: Any, source: Source) -> None:
        """`args`: of `Picture`, with a schedule that was made for a picture."""
        self._source = source
        self._kept: tuple[Array, Array] | None = None
        """Latents and noise of the source; where there is a mask."""
        super().__init__(*args)

    def _begin(self) -> None:
        source = self._source
        image = source.mean + source.std * self._drawn()
        noise = self._drawn()
        if source.mask is not None:
            self._drawn()  # diffusers encodes the masked picture as well, for networks that take it
            self._kept = image, noise
        if source.from_noise:
            np.multiply(noise, np.float32(self.schedule.initial_scale), out=self.latents)
        else:
            self.latents[...] = self._noised(0, image, noise)

    def _drawn(self) -> Array:
        return np.asarray(torch.randn(self.shape, generator=self._generator))

    def _noised(self, step: int, image: Array, noise: Array) -> Array:
        """The source as noisy as the latents are before step number `step`."""
        assert self.schedule.noised is not None
        of_image, of_noise = self.schedule.noised[step]
        return np.asarray(of_image * image + of_noise * noise)

    def _step(self) -> None:
        super()._step()
        if self._kept is not None and self._source.mask is not None:
            image, noise = self._kept
            outside = image if self.done else self._noised(self.step, image, noise)
            mask, latents = self._source.mask, self.latents
            latents[...] = (1 - mask) * outside + mask * latents
