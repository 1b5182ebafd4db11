"""The public model that answers at every step: the ensemble's flow, driven here, with the sampler followed step by step."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from faceclip_serving.checks.policy import of_settings
from faceclip_serving.models import adapter
from faceclip_serving.models.front import Front
from faceclip_serving.models.marks import marker_of
from faceclip_serving.models.streaming import stream
from faceclip_serving.sampling.previews import PREVIEW_FILE


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        factors, marker = np.load(setup.folder / PREVIEW_FILE), marker_of(setup.settings, setup.variant)
        self._front = Front(
            setup, partial(stream, setup.variant, factors, marker, of_settings(setup.settings).most_preview_cells)
        )

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            self._front.accept(request)

    def finalize(self) -> None:
        self._front.stop()
