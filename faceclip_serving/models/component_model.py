"""The Triton model of a component that runs in Python; `1/model.py` of every such component is this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..contract.signatures import bounds, usual_sizes
from . import adapter
from .encoding_cache import EncodingCache


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        name, placement = setup.signature.name, setup.placement
        execution = placement.components[name]
        path = setup.folder / execution.runtime.artifact
        limits = bounds(setup.variant, placement.denoiser_rows, setup.vae_tile)[name]
        self._signature = setup.signature
        self._close: Callable[[], None] = lambda: None
        if execution.runtime.package:
            from .trt_component import TrtComponent  # where there is no plan, its packages may be missing

            plan = TrtComponent(path, setup.signature, execution, limits, placement.gpu)
            self._run, self._close = plan.run, plan.close
            plan.warm_up(usual_sizes(setup.variant, limits))
        else:
            from .onnx_component import OnnxComponent

            self._run = OnnxComponent(path, setup.signature, placement.providers(name), limits).run
        if placement.remembered_bytes(name):
            self._run = EncodingCache(self._run, setup.signature, setup.settings["encoding_cache_mb"] * 2**20)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [adapter.respond(request, self._signature, self._run) for request in requests]

    def finalize(self) -> None:
        self._close()
