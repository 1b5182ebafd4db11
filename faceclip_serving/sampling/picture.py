"""One picture on its way from noise to latents: its own schedule, guidance and generator, and the arrays that a step works in.

Between two calls of the denoiser there is arithmetic on arrays that exist already, and a picture's is its own, so that its bits never
depend on whom it shares a call with. torch draws the noise, so that a seed means the same picture as in diffusers, and does nothing
else.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ..contract.tensors import Array
from .guidance import Chain, with_guidance
from .people import People
from .probe import Schedule
from .step_cache import StepCache


class Picture:
    """One picture between noise and latents."""

    def __init__(
        self,
        schedule: Schedule,
        chains: tuple[Chain, ...],
        constants: Mapping[str, Mapping[str, Array]],
        shape: tuple[int, ...],
        seed: int,
        cache: StepCache,
        people: People | None = None,
    ) -> None:
        """`chains`: guidance of each step. `constants`: row -> the denoiser inputs that do not change between steps, each
        [1, ...]. `shape`: of the latents, [1, channels, height, width]. `people`: where several are together."""
        self.schedule, self.chains, self.constants, self.shape, self.cache = schedule, chains, constants, shape, cache
        of_branches = list(constants.values())
        self.row_shape = (shape, *(array.shape for array in (of_branches[0].values() if of_branches else ())))
        """Equal for pictures whose rows fit one call: of the latents, and of what does not change between steps."""
        self._people = people
        self.step = 0
        self.last_tick = -1
        self._matrices = with_guidance(schedule.steps, chains)
        rows, branches = schedule.steps.shape[1], max(len(chain.branches) for chain in chains)
        self._now, self._next = (_Values(self._matrices.shape[-1], rows, branches, shape) for _ in range(2))
        self._generator = torch.Generator().manual_seed(seed)
        self._begin()

    @property
    def latents(self) -> Array:
        """FP32 [1, channels, height, width]; the next step but one writes here again."""
        return self._now.latents

    @property
    def done(self) -> bool:
        return self.step >= len(self.chains)

    @property
    def chain(self) -> Chain:
        return self.chains[self.step]

    @property
    def rows(self) -> tuple[str, ...]:
        """The denoiser's rows of the current step: its chain's branches, where not several people are together."""
        branches = self.chain.branches
        return branches if self._people is None else self._people.rows_of(branches)

    def steps_alike(self) -> int:
        """The first step from here on that calls for other rows, or the number of steps."""
        branches = self.chain.branches
        return next((i for i in range(self.step, len(self.chains)) if self.chains[i].branches != branches), len(self.chains))

    @property
    def timestep(self) -> float:
        return self.schedule.timesteps[self.step]

    def model_input(self, out: Array | None = None) -> Array:
        """The scaled latents [1, ...] of the current step."""
        return np.multiply(self.latents, self.schedule.input_scales[self.step], out=out)

    def advance(self, predictions: Array) -> None:
        """Takes one step, given the predictions of its rows [rows, channels, height, width].

        Takes those after it as well that need no new prediction, see `step_cache`.
        """
        self._now.take(predictions if self._people is None else self._people.of_branches(self.chain.branches, predictions))
        if self.cache.threshold > 0:
            self.cache.remember(self.model_input(), self.chain)
        self._step()
        while self.cache.threshold > 0 and not self.done:
            if not self.cache.serves(self.model_input(), self.step, len(self.chains), self.chain):
                break
            self._now.predictions[...] = self._next.predictions
            self._step()

    def _begin(self) -> None:
        """Fills the latents, with noise."""
        torch.randn(self.shape, generator=self._generator, out=torch.from_numpy(self.latents))
        np.multiply(self.latents, np.float32(self.schedule.initial_scale), out=self.latents)

    def _step(self) -> None:
        now, then = self._now, self._next
        if self.schedule.draws[self.step]:
            torch.randn(self.shape, generator=self._generator, out=now.noise)
        np.einsum("rk,kn->rn", self._matrices[self.step], now.all, out=then.registers)
        self._now, self._next = then, now
        self.step += 1


class _Values:
    """What a step is computed from, as rows of one array, each a tensor of the latents' shape: the registers, the prediction of the
    first branch, the differences between neighbouring branches, and noise."""

    def __init__(self, count: int, registers: int, branches: int, shape: tuple[int, ...]) -> None:
        self.all = np.zeros((count, int(np.prod(shape))), np.float32)
        self.registers = self.all[:registers]
        self.predictions = self.all[registers : registers + branches]
        self.latents: Array = self.all[0].reshape(shape)
        self.noise = torch.from_numpy(self.all[-1].reshape(shape))
        """Of use where a step draws any; else this row is another one's."""
        self._first = self.all[registers].reshape(shape[1:])
        self._differences = [
            self.all[registers + 1 : registers + count].reshape(count - 1, *shape[1:]) for count in range(1, branches + 1)
        ]

    def take(self, predictions: Array) -> None:
        """Predictions of a chain's branches [branches, channels, height, width]."""
        self._first[...] = predictions[0]
        if len(predictions) > 1:
            np.subtract(predictions[1:], predictions[:-1], out=self._differences[len(predictions) - 1])
