"""Steps without a denoiser call: while the denoiser's input has hardly changed, its last prediction is used again.

After TeaCache and FirstBlockCache, but outside of the network, so that any exported denoiser can be used and rows stay free to be
batched: the estimate looks at the scaled latents alone. Changes of successive inputs add up, and when their sum has reached the
threshold the denoiser is called again. The first steps and the last are always computed. Which thresholds keep a variant's pictures
good enough is to be measured: `python -m benchmarks step-cache`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contract.tensors import Array

FIRST_STEPS = 2
"""Steps at the beginning that are always computed: the composition of the picture is decided there."""


@dataclass
class StepCache:
    """What one picture knows of its last prediction, which it keeps itself. `threshold`: sum of relative changes from which that is
    no longer used; 0: off."""

    threshold: float
    skipped: int = 0
    """Steps that used the last prediction again."""
    _last_input: Array | None = None
    _of: Any = None
    _changed: float = 0.0

    def remember(self, model_input: Array, of: object) -> None:
        """Notes what the denoiser's input was. `of`: the guidance that its prediction has; another one needs another call."""
        self._last_input, self._of, self._changed = model_input, of, 0.0

    def serves(self, model_input: Array, step: int, steps: int, of: object) -> bool:
        """Whether the last prediction is used for step number `step` (from 0) of `steps` as well."""
        if self._last_input is None or of != self._of or not FIRST_STEPS <= step < steps - 1:
            return False
        change = np.abs(model_input - self._last_input).mean() / max(np.abs(self._last_input).mean(), 1e-12)
        self._changed += float(change)
        self._last_input = model_input
        if not self._changed < self.threshold:
            return False
        self.skipped += 1
        return True
