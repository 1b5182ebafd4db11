"""Every model that can be served, by its name. A variant is a value: no code compares its name or its family."""

from __future__ import annotations

from collections.abc import Mapping

from .flux import FLUX, TINY_FLUX
from .sdxl import NANO, SDXL, TINY_SDXL
from .variant import Variant

VARIANTS: Mapping[str, Variant] = {variant.name: variant for variant in (SDXL, TINY_SDXL, NANO, FLUX, TINY_FLUX)}
