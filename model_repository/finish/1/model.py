"""Last step of the ensemble: encodes pictures and the report, and ends the request."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

from faceclip_serving.contract.errors import DeadlineExceeded, outcome
from faceclip_serving.contract.operations import End
from faceclip_serving.contract.signatures import REPORT
from faceclip_serving.contract.tensors import Array
from faceclip_serving.models import adapter
from faceclip_serving.models.finish import finish
from faceclip_serving.models.holder import asking
from faceclip_serving.models.metrics import Metrics, StageMetrics


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        self._signature = setup.signature
        self._ask = asking(setup.call)
        self._finish = partial(finish, setup.variant, setup.placement, setup.digest)
        self._stages = StageMetrics(Metrics(setup.variant.name, setup.deployment))

    def execute(self, requests: list[Any]) -> list[Any]:
        return [adapter.respond(request, self._signature, self._one) for request in requests]

    def _one(self, arrays: dict[str, Array]) -> dict[str, Array]:
        report = json.loads(arrays[REPORT.name][0])
        try:
            outputs = self._finish(arrays)
            if report["deadline"] is not None and time.monotonic() > report["deadline"]:
                raise DeadlineExceeded("the request's timeout ran out while its pictures were decoded; allow more time")
        except Exception as error:
            self._end(report["place"], error)
            raise
        self._end(report["place"], None)
        self._stages.add(json.loads(outputs["details"][0])["timings_s"])
        return outputs

    def _end(self, place: str, error: Exception | None) -> None:
        if place:
            self._ask(End(place, outcome(error)))
