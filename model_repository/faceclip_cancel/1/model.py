"""The public model that ends a request by its id: for callers over HTTP, whose hang-up Triton does not see, and for other processes.

Whoever knows an id may end its requests, so clients choose ids that nobody guesses.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.models import ENDED, REQUEST_ID
from faceclip_serving.contract.operations import Cancel
from faceclip_serving.contract.request import check_id
from faceclip_serving.contract.tensors import Array
from faceclip_serving.models import adapter
from faceclip_serving.models.holder import asking


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        self._signature = setup.signature
        self._ask = asking(setup.call)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [adapter.respond(request, self._signature, self._one) for request in requests]

    def _one(self, arrays: dict[str, Array]) -> dict[str, Array]:
        told = arrays[REQUEST_ID.name][0]
        try:
            request_id = told.decode()
        except UnicodeDecodeError:
            request_id = ""
        if not request_id:
            raise InvalidRequest(f"{REQUEST_ID.name}: expected the id that the request was sent with, in UTF-8, got {told!r}")
        return {ENDED.name: np.array([self._ask(Cancel(check_id(REQUEST_ID.name, request_id)))["ended"]])}
