"""Last step of the ensemble: checks, marks and encodes pictures, and the report."""

from __future__ import annotations

from functools import partial
from typing import Any

from faceclip_serving.checks.policy import PICTURES
from faceclip_serving.models import adapter
from faceclip_serving.models.checks import checks_of
from faceclip_serving.models.finish import finish
from faceclip_serving.models.marks import marker_of


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        self._signature = setup.signature
        marker, checks = marker_of(setup.settings, setup.variant), checks_of(setup.settings, PICTURES)
        self._finish = partial(finish, setup.variant, setup.placement, setup.digest, marker, checks=checks)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [adapter.respond(request, self._signature, self._finish) for request in requests]
