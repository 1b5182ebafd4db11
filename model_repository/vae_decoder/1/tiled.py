"""What stands here as model.py where the placement has a tile: pictures are decoded tile by tile, over the model `vae_tile`.

`vae_tile` holds the component's artifact, whatever runtime that is for; this model only cuts, calls and blends.
"""

from __future__ import annotations

from typing import Any

from faceclip_serving.contract.signatures import VAE_TILE, vae_tile
from faceclip_serving.models import adapter
from faceclip_serving.sampling.tiling import tiled


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        self._signature = setup.signature
        tile = vae_tile(setup.variant)
        self._run = tiled(lambda arrays: setup.call_as(tile, VAE_TILE, arrays), setup.vae_tile, setup.variant.latent_scale)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [adapter.respond(request, self._signature, self._run) for request in requests]
