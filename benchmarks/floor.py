"""The physical floor: what this device cannot beat, from counted work and the device's measured peaks.

A run cannot be shorter than its products at the peak rate of products, nor than moving its weights, inputs and outputs once at
the peak bandwidth. Pure arithmetic; `device_peak` measures, `export.graph_cost` counts.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.graph_cost import Cost, graph_cost
from export.graph_shapes import Graph, concrete, find
from faceclip_serving.profiles import Placement, Profile
from faceclip_serving.signatures import COMPONENTS, DENOISER, TEXT_ENCODER, VAE_DECODER
from faceclip_serving.variant import Variant

from .sweep import Point

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


def stage_sizes(variant: Variant, point: Point) -> dict[str, int]:
    """Named axes of every component for one request: guided, so two rows per picture; one face."""
    cells = {
        "latent_height": point.height // variant.latent_scale,
        "latent_width": point.width // variant.latent_scale,
    }
    pixels = {"height": point.height, "width": point.width}
    return {"rows": 2 * point.images, "images": point.images, "faces": 1, **cells, **pixels}


def component_sizes(variant: Variant, component: str, point: Point) -> dict[str, int]:
    """The same for one component; the text encoder sees two rows whatever the number of pictures."""
    sizes = stage_sizes(variant, point)
    return {**sizes, "rows": 2} if component == TEXT_ENCODER else sizes


def float_bits(placement: Placement) -> int | None:
    """Width in which a placement computes; None: as the graph says."""
    return CPU_FLOAT_BITS if placement.runtime.instance_kind == "KIND_CPU" else None


def costs(variant: Variant, profile: Profile, onnx: Path, point: Point) -> dict[str, Cost]:
    """What each component costs once at `point`. `onnx`: folder of `<precision>/<component>/model.onnx`."""
    found = {}
    for name in COMPONENTS:
        placement = profile.placements[name]
        graph = concrete(find(variant.name, name, placement.precision, onnx), component_sizes(variant, name, point))
        if missing := unsized(graph):
            print(f"  {name}: {missing} tensors of its graph have no size; work is counted without them", file=sys.stderr)
        found[name] = graph_cost(graph, float_bits(placement))
    return found


def unsized(graph: Graph) -> int:
    """How many tensors of numbers the graph gives no size: what they cost is missing from every count."""
    return sum(tensor.floating and 0 in tensor.dims for tensor in graph.tensors.values())


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
