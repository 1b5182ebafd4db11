"""First step of the ensemble: reserves a place in the sampler, checks the request, finds and aligns faces, tokenises.

The place comes first, so that a full server refuses at once and does nothing else for a request it will not run.
"""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.signatures import SAMPLER
from faceclip_serving.contract.tensors import Array, json_tensor
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.models import adapter
from faceclip_serving.models.metrics import Metrics, requests_by_outcome
from faceclip_serving.models.prepare import prepare
from faceclip_serving.models.prompts import load_tokenizer


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        self._signature = setup.signature
        self._call = setup.call
        tokenizers = [load_tokenizer(setup.folder / tokens.tokenizer) for tokens in setup.variant.tokens]
        self._metrics = Metrics(setup.variant.name, setup.deployment)
        self._ended = requests_by_outcome(self._metrics, "invalid", "error")
        self._prepare = partial(prepare, setup.variant, tokenizers, YuNet(), setup.digest)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [adapter.respond(request, self._signature, partial(self._one, request)) for request in requests]

    def _one(self, request: Any, arrays: dict[str, Array]) -> dict[str, Array]:
        timeout_us = adapter.timeout_us(request)
        deadline = time.monotonic() + timeout_us / 1e6 if timeout_us else None
        reservation = self._control(op="admit")["reservation"]
        try:
            return self._prepare(arrays, reservation=reservation, deadline=deadline)
        except Exception as error:
            self._ended["invalid" if isinstance(error, InvalidRequest) else "error"].increment(1)
            self._control(op="release", reservation=reservation)
            raise

    def _control(self, **operation: Any) -> Any:
        return json.loads(self._call(SAMPLER, {"control": json_tensor(operation)})["report"][0])
