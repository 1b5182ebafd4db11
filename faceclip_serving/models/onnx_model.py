"""The Triton model of a component on ONNX Runtime; `1/model.py` of every such component is this."""

from __future__ import annotations

from typing import Any

from ..contract.signatures import bounds
from . import adapter
from .encoding_cache import EncodingCache
from .onnx_component import OnnxComponent


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        execution = setup.placement.components[setup.signature.name]
        self._signature = setup.signature
        component = OnnxComponent(
            setup.folder / execution.runtime.artifact,
            setup.signature,
            setup.placement.providers(setup.signature.name),
            bounds(setup.variant, setup.placement.denoiser_rows, setup.vae_tile)[setup.signature.name],
        )

        self._run = component.run
        if setup.placement.remembered_bytes(setup.signature.name):
            self._run = EncodingCache(component.run, setup.signature, setup.settings["encoding_cache_mb"] * 2**20)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [adapter.respond(request, self._signature, self._run) for request in requests]
