"""The public model that says which faces photographs show; the request's life is `Front`'s, as of those that draw."""

from __future__ import annotations

from functools import partial
from typing import Any

from faceclip_serving.models import adapter
from faceclip_serving.models.faces import look
from faceclip_serving.models.front import Front


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        self._front = Front(setup, partial(look, setup.digest))

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            self._front.accept(request)

    def finalize(self) -> None:
        self._front.stop()
