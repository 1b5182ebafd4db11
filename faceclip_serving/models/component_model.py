"""The Triton model of a component that runs in Python; `1/model.py` of every such component is this."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..contract.errors import Cancelled
from ..contract.operations import Lost, Prepare
from ..contract.signatures import ENCODERS, bounds, usual_sizes
from ..contract.tensors import Array
from . import adapter
from .encoding_cache import EncodingCache
from .holder import asking

ASK_AFTER_S = 0.5
"""Of waiting: to ask takes a millisecond or two, so it is not done for those who are served at once."""


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        name, placement = setup.signature.name, setup.placement
        execution = placement.components[name]
        path = setup.folder / execution.runtime.artifact
        limits = bounds(setup.variant, placement.denoiser_rows, setup.vae_tile)[name]
        self._signature = setup.signature
        self._ask = asking(setup.call)
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
        return [adapter.respond(request, self._signature, partial(self._wanted, request)) for request in requests]

    def _wanted(self, request: Any, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Runs the component. Of a request that has waited it is asked first whether anybody still waits for it."""
        if self._signature.name in ENCODERS:
            context = adapter.context(request)
            waited = context.place and time.monotonic() - context.called > ASK_AFTER_S
            if waited and self._ask(Lost([context.place]))["lost"]:
                self._ask(Prepare(context.place))  # raises why the request has ended
                raise Cancelled("the request has ended before it was encoded")
        return self._run(arrays)

    def finalize(self) -> None:
        self._close()
