"""The physical floor: what this device cannot beat, from counted work and the device's measured peaks.

A run cannot be shorter than its products at the peak rate of products, nor than moving its weights, inputs and outputs once at
the peak bandwidth. Pure arithmetic; `device_peak` measures, `export.forecast.cost` counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faceclip_serving.contract.components import TEXT_TOKENS
from faceclip_serving.contract.names import COMPONENTS, DENOISER, TEXT_ENCODER, VAE_DECODER
from faceclip_serving.contract.placements import Placement, Runtime
from faceclip_serving.contract.variants.variant import Variant

from .sweep import Point

if TYPE_CHECKING:
    from export.forecast.cost import Cost

CPU_FLOAT_BITS = 32
"""ONNX Runtime's CPU kernels compute half precision in this."""


@dataclass(frozen=True)
class Peak:
    """What a device was measured to do at best."""

    flops_per_s: float
    """Of matrix products, a multiply-add counted as two."""
    bytes_per_s: float
    """Read and written together."""


def floor_s(work: Cost, peak: Peak) -> float:
    """Least seconds of one run."""
    return max(work.flops / peak.flops_per_s, work.least_bytes / peak.bytes_per_s)


def unfused_s(work: Cost, peak: Peak) -> float:
    """Seconds where every operator's tensors go through memory: what fusion and caches can save is the way down to the floor."""
    return max(work.flops / peak.flops_per_s, work.traffic_bytes / peak.bytes_per_s)


def component_sizes(variant: Variant, component: str, point: Point) -> dict[str, int]:
    """Named axes of a component's inputs for one request: guided, so two rows per picture, and one face; the text encoder sees
    two rows whatever the number of pictures."""
    scale = variant.latent_scale
    return {
        "rows": 2 if component == TEXT_ENCODER else 2 * point.images,
        "images": point.images,
        "faces": 1,
        TEXT_TOKENS: variant.text_tokens.max_tokens,
        "latent_height": point.height // scale,
        "latent_width": point.width // scale,
        "height": point.height,
        "width": point.width,
    }


def float_bits(runtime: Runtime) -> int | None:
    """Width in which a component computes; None: as the graph says."""
    return CPU_FLOAT_BITS if runtime.instance_kind == "KIND_CPU" else None


def costs(variant: Variant, placement: Placement, onnx: Path, point: Point) -> dict[str, Cost]:
    """What each component costs once at `point`. `onnx`: folder of `<precision>/<component>/model.onnx`."""
    from export.forecast.cost import graph_cost  # torch
    from export.forecast.shapes import concrete, find

    return {
        name: graph_cost(
            concrete(find(variant.name, name, onnx), component_sizes(variant, name, point)),
            float_bits(placement.components[name].runtime),
        )
        for name in COMPONENTS
    }


def request_floor_s(work: Mapping[str, Cost], peak: Peak, steps: int) -> float:
    """Least seconds of a request whose encodings are remembered: `steps` denoiser runs, one decode."""
    return steps * floor_s(work[DENOISER], peak) + floor_s(work[VAE_DECODER], peak)


def floors(work: Mapping[str, Cost], peak: Peak) -> dict[str, dict[str, Any]]:
    """Per component: counted work, and the floor in seconds."""
    return {
        name: {
            "flops": each.flops,
            "weight_bytes": each.weight_bytes,
            "activation_peak_bytes": each.activation_peak_bytes,
            "traffic_bytes": each.traffic_bytes,
            "floor_s": floor_s(each, peak),
            "unfused_s": unfused_s(each, peak),
        }
        for name, each in work.items()
    }
