"""The public model that answers once: the flow is the inner ensemble's, the request's life is `Front`'s."""

from __future__ import annotations

from typing import Any

from faceclip_serving.contract.names import ENSEMBLE
from faceclip_serving.models import adapter
from faceclip_serving.models.front import Front
from faceclip_serving.models.streaming import Arrays, Call, Flow


def flow(call: Call, arrays: Arrays, place: str) -> Flow:
    """Nothing on the way, the ensemble's outputs at the end."""
    yield from ()
    return call(ENSEMBLE, arrays)


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self._front = Front(adapter.setup(args), flow)

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            self._front.accept(request)

    def finalize(self) -> None:
        self._front.stop()
