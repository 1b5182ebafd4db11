"""Last step of the ensemble: encodes pictures and the report. The sampler then counts the request as in flight no more."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from faceclip_serving.contract.errors import NotANumber
from faceclip_serving.contract.signatures import REPORT, SAMPLER
from faceclip_serving.contract.tensors import Array, json_tensor
from faceclip_serving.models import adapter
from faceclip_serving.models.finish import finish
from faceclip_serving.models.metrics import Metrics, StageMetrics, requests_by_outcome


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        self._signature = setup.signature
        self._call = setup.call
        self._finish = partial(finish, setup.variant, setup.placement, setup.digest)
        metrics = Metrics(setup.variant.name, setup.deployment)
        self._stages = StageMetrics(metrics)
        self._not_a_number = requests_by_outcome(metrics, "not_a_number")["not_a_number"]

    def execute(self, requests: list[Any]) -> list[Any]:
        return [adapter.respond(request, self._signature, self._one) for request in requests]

    def _one(self, arrays: dict[str, Array]) -> dict[str, Array]:
        try:
            outputs = self._finish(arrays)
        except NotANumber:
            self._not_a_number.increment(1)
            raise
        finally:
            self._release(json.loads(arrays[REPORT.name][0])["reservation"])
        self._stages.add(json.loads(outputs["details"][0])["timings_s"])
        return outputs

    def _release(self, reservation: int | None) -> None:
        if reservation is not None:
            self._call(SAMPLER, {"control": json_tensor({"op": "release", "reservation": reservation})})
