"""How much memory a variant needs on a placement, from the real graphs, before anything is built or bought.

Weights are counted from the graphs; intermediate tensors by following each graph at the largest size that the placement admits
(`live_memory`). What no graph tells, the memory of processes, CUDA contexts and kernels' workspace, are constants below, measured or
assumed as they say. Whole-card memory is held against the placement's `gpu_bytes`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from faceclip_serving.contract.placements import ORT_CPU, ORT_CUDA, TENSORRT, Execution, Placement, placements
from faceclip_serving.contract.signatures import COMPONENTS, FINISH, PREPARE, SAMPLER, STREAM, VAE_DECODER, bounds
from faceclip_serving.contract.variant import Variant
from faceclip_serving.contract.variants import VARIANTS

from ..commandline import add_components, add_placement, add_variant
from ..engine.shapes import parse_size
from ..paths import onnx_folder
from . import live_memory
from .shapes import concrete, find, record

CUDA_CONTEXT_BYTES = 450_000_000
"""Per process that computes on the card: CUDA's context, its libraries' code and small workspaces. Assumed; no GPU was at hand."""
MARGIN = 0.03
"""Share of the sum, for fragments and alignment. Assumed."""

SERVER_BYTES = 60_000_000
"""Resident memory of tritonserver itself. This and the following measured on the CPU, 2.51 of the wheel."""
COMPONENT_BYTES = 75_000_000
"""Of the process of a component on ONNX Runtime, without its weights."""
MODEL_BYTES: Mapping[str, int] = {PREPARE: 95_000_000, SAMPLER: 345_000_000, FINISH: 50_000_000, STREAM: 43_000_000}
"""Of the other Python models. The sampler's has torch and diffusers."""
PICTURE_COPIES = 10
"""FP32 pictures of a request that are held on their way from the decoder to the answer, by all processes together."""

_MATRIX_BITS = {"fp8": 8, "int8": 8, "int8w": 8}


@dataclass(frozen=True)
class Need:
    """Bytes of one component where it runs."""

    runtime: str
    precision: str
    weights: int
    activations: int
    on_gpu: bool

    @property
    def total(self) -> int:
        return self.weights + self.activations


@dataclass(frozen=True)
class Forecast:
    variant: str
    placement: str
    size: tuple[int, int]
    """Largest picture of the forecast: height, width in pixels."""
    rows: int
    components: Mapping[str, Need]
    gpu_overhead: int
    host_overhead: int
    gpu_limit: int | None

    @property
    def gpu_bytes(self) -> int:
        """Peak on the card."""
        used = sum(need.total for need in self.components.values() if need.on_gpu)
        return round((used + self.gpu_overhead) * (1 + MARGIN)) if used else 0

    @property
    def host_bytes(self) -> int:
        """Peak of all processes' resident memory."""
        return self.host_overhead + sum(need.total for need in self.components.values() if not need.on_gpu)

    @property
    def fits(self) -> bool:
        return self.gpu_limit is None or self.gpu_bytes <= self.gpu_limit


def predict(variant: Variant, placement: Placement, exported: Path, largest: tuple[int, int] | None = None) -> Forecast:
    """`exported`: root of `<precision>/<component>/`; `largest`: height and width, if smaller than the placement's.

    TensorRT reserves memory for the largest picture and batch, whatever is asked for; ONNX Runtime's arena grows to the largest that
    was asked for: it is forecast the same. Raises `GraphError`.
    """
    narrowed = placement.narrowed(variant)
    high = narrowed.limits.size[1]
    usual = (variant.defaults.height, variant.defaults.width)
    size = largest or ((high, high) if placement.largest_side else usual)
    limits = bounds(narrowed, placement.denoiser_rows, placement.vae_tile)
    needs = {}
    for component in COMPONENTS:
        sizes = {axis: found.max for axis, found in limits[component].items()}
        for axis, pixels in zip(("latent_height", "latent_width"), size, strict=True):
            if axis in sizes:
                sizes[axis] = min(sizes[axis], pixels // variant.latent_scale)
        sizes = {**sizes, "height": size[0], "width": size[1]}
        needs[component] = _need(variant, component, placement.components[component], sizes, exported)
    on_gpu = [execution.runtime for execution in placement.components.values() if execution.runtime is not ORT_CPU]
    contexts = any(runtime.backend != "python" for runtime in on_gpu) + on_gpu.count(ORT_CUDA)
    hosted = sum(execution.runtime.backend == "python" for execution in placement.components.values())
    pictures = narrowed.limits.num_images_per_prompt * 3 * 4 * size[0] * size[1]
    host = SERVER_BYTES + hosted * COMPONENT_BYTES + sum(MODEL_BYTES.values()) + PICTURE_COPIES * pictures
    return Forecast(
        variant.name,
        placement.name,
        size,
        placement.denoiser_rows,
        needs,
        contexts * CUDA_CONTEXT_BYTES,
        host,
        placement.gpu_bytes,
    )


def _need(variant: Variant, component: str, execution: Execution, sizes: Mapping[str, int], exported: Path) -> Need:
    graph = concrete(find(variant.name, component, exported), sizes)
    rules = live_memory.TENSORRT if execution.runtime is TENSORRT else live_memory.ONNX_RUNTIME
    if execution.precision == "fp32" or execution.runtime is ORT_CPU:
        rules = replace(rules, half_bits=32)
    weights = live_memory.weight_bytes(graph, rules, _MATRIX_BITS.get(execution.precision))
    activations = live_memory.peak_bytes(graph, rules)
    return Need(execution.runtime.name, execution.precision, weights, activations, execution.runtime is not ORT_CPU)


# ---------------------------------------------------------------------------------------------------------------- command
def document(forecast: Forecast) -> dict[str, object]:
    """The forecast as JSON; sizes in GB of 10^9 bytes."""

    def gb(size: int) -> float:
        return round(size / 1e9, 3)

    return {
        "variant": forecast.variant,
        "placement": forecast.placement,
        "largest": list(forecast.size),
        "denoiser_rows": forecast.rows,
        "predicted_peak_gb": gb(forecast.gpu_bytes or forecast.host_bytes),
        "limit_gb": None if forecast.gpu_limit is None else gb(forecast.gpu_limit),
        "fits": forecast.fits,
        "components": {
            name: {
                "where": "gpu" if need.on_gpu else "host",
                "runtime": need.runtime,
                "precision": need.precision,
                "weights_gb": gb(need.weights),
                "activations_gb": gb(need.activations),
            }
            for name, need in forecast.components.items()
        },
        "gpu": {"predicted_peak_gb": gb(forecast.gpu_bytes), "contexts_gb": gb(forecast.gpu_overhead), "margin": MARGIN},
        "host": {"predicted_peak_gb": gb(forecast.host_bytes), "processes_gb": gb(forecast.host_overhead)},
    }


def table(forecast: Forecast) -> str:
    """The forecast as lines to read."""
    height, width = forecast.size
    lines = [
        f"{forecast.variant} on {forecast.placement}: pictures up to {height} x {width}, {forecast.rows} denoiser rows, GB of 10^9 bytes",
        f"{'':14} {'where':5} {'runtime':9} {'precision':9} {'weights':>8} {'activations':>12} {'sum':>8}",
    ]
    for name, need in forecast.components.items():
        where = "GPU" if need.on_gpu else "host"
        figures = f"{need.weights / 1e9:8.2f} {need.activations / 1e9:12.2f} {need.total / 1e9:8.2f}"
        lines.append(f"{name:14} {where:5} {need.runtime:9} {need.precision:9} {figures}")
    if forecast.gpu_bytes:
        used = forecast.gpu_bytes / (1 + MARGIN)
        lines.append(f"{'CUDA contexts':14} {'GPU':39} {forecast.gpu_overhead / 1e9:8.2f}")
        lines.append(f"{'margin':14} {'GPU':39} {used * MARGIN / 1e9:8.2f}")
        limit = "" if forecast.gpu_limit is None else f" of {forecast.gpu_limit / 1e9:.2f}"
        lines.append(f"{'GPU peak':54} {forecast.gpu_bytes / 1e9:8.2f}{limit}")
    lines.append(f"{'processes':14} {'host':39} {forecast.host_overhead / 1e9:8.2f}")
    lines.append(f"{'host peak':54} {forecast.host_bytes / 1e9:8.2f}")
    return "\n".join(lines)


def refusal(forecast: Forecast, limit: int) -> str:
    """Why a forecast does not fit, and what would change that."""
    largest, need = max(((n, c) for n, c in forecast.components.items() if c.on_gpu), key=lambda each: each[1].total)
    cures = []
    if need.weights >= limit:
        cures.append(f"its weights alone are more than the card: a smaller precision than {need.precision}, or a larger card")
    else:
        if forecast.rows > 1:
            cures.append("fewer denoiser_rows")
        cures.append("smaller pictures (--largest HEIGHTxWIDTH, the placement's largest_side)")
        if forecast.components[VAE_DECODER].on_gpu and forecast.components[VAE_DECODER].activations > limit // 10:
            cures.append("a smaller vae_tile")
        cures.append("encoders on the CPU, or a placement for a larger card")
    return (
        f"'{forecast.variant}' on '{forecast.placement}' needs {forecast.gpu_bytes / 1e9:.2f} GB of the card, {limit / 1e9:.2f} GB may"
        f" be used; the"
        f" largest part is {largest} ({need.weights / 1e9:.2f} GB weights, {need.activations / 1e9:.2f} GB activations);"
        f" change: {'; '.join(cures)}"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser, "sdxl")
    add_placement(parser, None, "only this one (default: all of the variant)")
    parser.add_argument(
        "--largest", type=parse_size, metavar="HEIGHTxWIDTH", help="largest picture, if not the placement's own"
    )
    add_components(parser, "root of exported graphs")
    parser.add_argument("--json", action="store_true", help="no table, only the JSON document")
    parser.add_argument("--record", action="store_true", help="keep the exported graphs, without weights, with the code")


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    exported = args.components or onnx_folder(variant)
    if args.record:
        files = {component: str(record(variant.name, component, exported)) for component in COMPONENTS}
        print(json.dumps({"recorded": files}))
        return 0
    known = placements(variant)
    chosen = [args.placement] if args.placement else list(known)
    forecasts = [_forecast_of(variant, name, known, exported, args.largest) for name in chosen]
    for each in forecasts:
        if not args.json:
            print(table(each) + "\n", file=sys.stderr)
    documents = [document(each) for each in forecasts]
    print(json.dumps(documents[0] if args.placement else documents))
    refused = [each for each in forecasts if not each.fits]
    for each in refused:
        print(f"error: {refusal(each, each.gpu_limit or 0)}", file=sys.stderr)
    return 1 if refused else 0


def _forecast_of(
    variant: Variant, name: str, known: Mapping[str, Placement], exported: Path, largest: tuple[int, int] | None
) -> Forecast:
    """The forecast of a placement. A card for which the variant has none gets the forecast of its leanest, against that card's memory."""
    if name in known:
        return predict(variant, known[name], exported, largest)
    on_cards = [placement for placement in known.values() if placement.gpu_bytes is not None]
    leanest = min(on_cards, key=lambda placement: placement.gpu_bytes or 0)
    limit = next(p.gpu_bytes for v in VARIANTS.values() for p in placements(v).values() if p.name == name)
    return replace(predict(variant, leanest, exported, largest), placement=name, gpu_limit=limit)
