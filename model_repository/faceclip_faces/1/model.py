"""The public model that looks at photographs, see `models.faces`; the request's life is `Front`'s, as of those that draw."""

from __future__ import annotations

from typing import Any

from faceclip_serving.audit.identities import Identities
from faceclip_serving.contract.digest import weights_of
from faceclip_serving.face.familiarity import read_statistics
from faceclip_serving.models import adapter
from faceclip_serving.models.faces import Looking
from faceclip_serving.models.front import Front


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        variant, weights = setup.variant, weights_of(setup.folder)
        identities = Identities.from_settings(setup.settings, variant.name, weights, variant.face_features)
        self._front = Front(setup, Looking(variant, setup.digest, identities, read_statistics(setup.folder, variant)))

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            self._front.accept(request)

    def finalize(self) -> None:
        self._front.stop()
