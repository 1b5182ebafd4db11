"""The networks of a placement, opened: what Python runs is run in this process; the rest are models of Triton's own backends.

One process for all means one CUDA context, and no copy between processes in a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..audit.revoked import Revoked
from ..contract.components import bounds, components, usual_sizes
from ..contract.models import FACE_CROPS
from ..contract.names import COMPONENTS, ENCODERS, FACE_ENCODER, OCCASIONAL, VAE_DECODER, VAE_ENCODER
from ..contract.placements import ORT_CPU, Placement
from ..contract.tensors import Array
from ..contract.variants.variant import Variant
from ..sampling.networks import Networks, Run, of_crops
from ..sampling.tiling import tiled, tiled_encoder
from .encoding_cache import EncodingCache, Forgetting
from .on_demand import OnDemand

Call = Callable[[str, Mapping[str, Array]], dict[str, Array]]
"""Runs a component that is a model of its own."""


class Components:
    """`networks`: component -> its run. Encodings are remembered, and pictures pass the VAE in the placement's tiles."""

    def __init__(
        self,
        variant: Variant,
        placement: Placement,
        folder: Callable[[str], Path],
        remembered_bytes: int,
        call: Call | None = None,
        threads: int = 0,
        remembered_s: float = math.inf,
        revoked: Revoked | None = None,
        on_lookup: Callable[[str, int, int], None] = lambda encoder, hits, misses: None,
    ) -> None:
        """`variant`: narrowed by the placement. `folder`: of a component's artifact. `remembered_bytes`: for each encoder; 0: nothing.

        `remembered_s`: how long; `revoked`: the list by whose changes all is forgotten.
        `on_lookup` hears of each encoder how many rows were remembered, and how many were not.
        `call`: for what is not run here; None: everything is. `threads`: of each graph on ONNX Runtime; 0: one per core.
        """
        self._closes: list[Callable[[], None]] = []
        self._placement, self._call, self._threads = placement, call, threads
        self._signatures = components(variant)
        runs = {name: self._opened(variant, name, folder(name)) for name in COMPONENTS}
        if placement.vae_tile:
            runs[VAE_ENCODER] = tiled_encoder(runs[VAE_ENCODER], placement.vae_tile, variant.latent_scale)
            runs[VAE_DECODER] = tiled(runs[VAE_DECODER], placement.vae_tile, variant.latent_scale)
        runs[FACE_ENCODER] = of_crops(runs[FACE_ENCODER])
        self.forgetful: Networks = runs
        """The same, without the memory."""
        remembered = {**self._signatures, FACE_ENCODER: replace(self._signatures[FACE_ENCODER], inputs=(FACE_CROPS,))}
        memories = {
            name: EncodingCache(
                runs[name], remembered[name], remembered_bytes, remembered_s, on_lookup=partial(on_lookup, name)
            )
            for name in ENCODERS
        }
        self.networks: Networks = {**runs, **memories}
        if remembered_bytes and (remembered_s < math.inf or revoked is not None):
            self._closes.append(Forgetting(list(memories.values()), revoked).stop)

    def close(self) -> None:
        """Frees what was opened. Nothing runs any more."""
        for close in self._closes:
            close()

    def _opened(self, variant: Variant, name: str, folder: Path) -> Run:
        placement, signature = self._placement, self._signatures[name]
        if self._call is not None and not placement.is_hosted(name):
            return partial(self._call, name)
        execution = placement.components[name]
        path = folder / execution.runtime.artifact
        limits = bounds(variant, placement.denoiser_rows, placement.vae_tile)[name]
        if execution.runtime.package:
            from .trt_component import TrtComponent  # where there is no plan, its packages may be missing

            plan = TrtComponent(path, signature, execution, limits, placement.gpu)
            self._closes.append(plan.close)
            plan.warm_up(usual_sizes(variant, limits))
            return plan.run
        from .onnx_component import OnnxComponent

        def opened() -> Run:
            component = OnnxComponent(path, signature, placement.providers(name), limits, self._threads)
            if execution.runtime.slow_first_call:
                component.warm_up(usual_sizes(variant, limits)[0])
            return component.run

        if name in OCCASIONAL and execution.runtime is ORT_CPU:
            kept = OnDemand(opened)
            self._closes.append(kept.close)
            return kept.run
        return opened()
