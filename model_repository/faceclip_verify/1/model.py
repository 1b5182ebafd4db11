"""The public model that says which marks a picture bears, and what the server does on its own. It keeps nothing and fetches nothing."""

from __future__ import annotations

from functools import partial
from typing import Any

from faceclip_serving.models import adapter
from faceclip_serving.models.marks import marker_of, rules_of, verify


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        self._signature = setup.signature
        marker, rules = marker_of(setup.settings, setup.variant), rules_of(setup.settings, setup.variant)
        self._verify = partial(verify, marker, rules=rules)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [adapter.respond(request, self._signature, self._verify) for request in requests]
