"""Steps without a denoiser call: while the denoiser's input has hardly changed, its last prediction is used again.

After TeaCache and FirstBlockCache, but outside of the network, so that any exported denoiser can be used and rows stay free to be
batched: the estimate looks at the scaled latents alone. Changes of successive inputs add up, and when their sum has reached the
threshold the denoiser is called again. The first steps and the last are always computed. Which thresholds keep a variant's pictures
good enough is to be measured: `python -m benchmarks step-cache`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

FIRST_STEPS = 2
"""Steps at the beginning that are always computed: the composition of the picture is decided there."""


@dataclass
class StepCache:
    """The memory of one picture. `threshold`: sum of relative changes from which a prediction is no longer used; 0: off."""

    threshold: float
    skipped: int = 0
    """Steps that used the last prediction again."""
    _last_input: torch.Tensor | None = None
    _prediction: torch.Tensor | None = None
    _of: Any = None
    _changed: float = 0.0

    def remember(self, model_input: torch.Tensor, prediction: torch.Tensor, of: object) -> None:
        """Notes what the denoiser made of an input. `of`: the guidance it was made with; another one needs another call."""
        self._last_input, self._prediction, self._of, self._changed = model_input, prediction, of, 0.0

    def recall(self, model_input: torch.Tensor, step: int, steps: int, of: object) -> torch.Tensor | None:
        """The last prediction, if it may serve for step number `step` (from 0) of `steps` as well."""
        if self._last_input is None or of != self._of:
            return None
        if not FIRST_STEPS <= step < steps - 1:
            return None
        self._changed += float((model_input - self._last_input).abs().mean() / self._last_input.abs().mean().clamp_min(1e-12))
        self._last_input = model_input
        if self._changed >= self.threshold:
            return None
        self.skipped += 1
        return self._prediction
