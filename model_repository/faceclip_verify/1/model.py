"""The public model that says which marks a picture bears, and what the server does on its own. It keeps nothing and fetches nothing."""

from __future__ import annotations

from functools import partial
from typing import Any

from faceclip_serving.checks.policy import of_settings
from faceclip_serving.models import adapter
from faceclip_serving.models.marks import marker_of, verify


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        self._signature = setup.signature
        self._verify = partial(verify, marker_of(setup.settings, setup.variant), of_settings(setup.settings).told())

    def execute(self, requests: list[Any]) -> list[Any]:
        return [adapter.respond(request, self._signature, self._verify) for request in requests]
