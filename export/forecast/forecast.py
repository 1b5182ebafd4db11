"""How much memory a variant needs on a placement, from the real graphs, before anything is built or bought.

What a plan needs was said by the compiler (`compiled`). On ONNX Runtime weights are counted from the graphs, and intermediate tensors by
following each graph at the largest size that the placement admits (`live_memory`). What neither tells, the memory of processes and CUDA
contexts, are constants below, measured or assumed as they say. Whole-card memory is held against the placement's `gpu_bytes`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from faceclip_serving.contract.components import SIDES, both_sides, bounds
from faceclip_serving.contract.names import (
    CANCEL,
    COMPONENTS,
    FACES,
    FINISH,
    OCCASIONAL,
    PREPARE,
    SAMPLER,
    STREAM,
    UNARY,
    VAE_DECODER,
)
from faceclip_serving.contract.placements import FUSED_FILE, ORT_CPU, Execution, Placement, placements
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..commandline import add_components, add_placement, add_runtime, add_variant
from ..engine.errors import EngineError
from ..engine.shapes import cells_of, parse_size
from ..onnx.errors import GraphError
from ..onnx.wanted import FACTOR_PRECISIONS, WEIGHT_BITS
from ..paths import onnx_folder
from . import compiled, live_memory
from .shapes import Graph, concrete, find, fused, record

CUDA_CONTEXT_BYTES = 450_000_000
"""Per process that runs plans: CUDA's context, its libraries' code and small workspaces. Assumed; no plan was run on a card."""
ONNX_RUNTIME_CONTEXT_BYTES = 650_000_000
"""The same of one that has ONNX Runtime on CUDA, with cuBLAS and cuDNN. Measured on an H100: 0.63."""
MARGIN = 0.03
"""Share of the sum, for fragments and alignment. Assumed."""

SERVER_BYTES = 60_000_000
"""Resident memory of tritonserver itself. This and the following measured on the CPU, 2.51 of the wheel."""
MODEL_BYTES: Mapping[str, int] = {
    PREPARE: 95_000_000, SAMPLER: 375_000_000, FINISH: 50_000_000, UNARY: 45_000_000, STREAM: 45_000_000, CANCEL: 40_000_000,
    FACES: 45_000_000,
}  # fmt: skip
"""Of the Python models, without weights. The sampler's has torch, diffusers and ONNX Runtime."""
PICTURE_COPIES = 10
"""FP32 pictures of a request that are held on their way from the decoder to the answer, by all processes together."""

MATRIX_BITS: Mapping[str, int] = dict.fromkeys((*FACTOR_PRECISIONS, *WEIGHT_BITS), 8)
"""Precision -> bits of a matrix' element, where they are fewer than FP16's. `int4w` has both sorts: eight is never too little."""


ONLY_WHILE_USED = "in memory only while pictures come in; counted in the peak"
"""Note of what `names.OCCASIONAL` says."""

COMPILER, MODEL = "compiler", "model"
"""Where a figure is from: the compiler's log, or counting and following the graph."""


@dataclass(frozen=True)
class Need:
    """Bytes of one component where it runs."""

    execution: Execution
    weights: int
    activations: int
    sources: Mapping[str, str]
    """`weights`, `activations` -> `COMPILER` or `MODEL`."""
    compiler: str = ""
    """Whose figures they are, e.g. `tensorrt-rtx 1.7.1.116`."""
    notes: tuple[str, ...] = ()
    """What is to be known of the figures: that they were scaled, or are those of another precision."""

    @property
    def on_gpu(self) -> bool:
        return self.execution.runtime is not ORT_CPU

    @property
    def on_card(self) -> int:
        """Weights that are on the card at once, where it runs there."""
        budget = self.execution.weights_on_card_bytes
        return self.weights if budget is None else min(budget, self.weights)

    @property
    def total(self) -> int:
        """Where it runs."""
        return self.on_card + self.activations

    @property
    def streamed(self) -> int:
        """Weights that wait in host memory."""
        return self.weights - self.on_card

    @property
    def source(self) -> str:
        """Of both figures; `compiler + model` where they differ."""
        return " + ".join(sorted(set(self.sources.values())))


@dataclass(frozen=True)
class Forecast:
    variant: Variant
    placement: Placement
    size: tuple[int, int]
    """Largest picture of the forecast: height, width in pixels."""
    components: Mapping[str, Need]

    @property
    def contexts(self) -> int:
        """Bytes of CUDA contexts: one of the server, where a backend of its own runs a component, and one of the sampler's process."""
        found: dict[bool, int] = {}
        for runtime in (need.execution.runtime for need in self.components.values() if need.on_gpu):
            hosted = runtime.backend == "python"
            needed = CUDA_CONTEXT_BYTES if runtime.package else ONNX_RUNTIME_CONTEXT_BYTES
            found[hosted] = max(found.get(hosted, 0), needed)
        return sum(found.values())

    @property
    def processes(self) -> int:
        """Bytes of all processes, and of the pictures that pass between them."""
        pictures = self.placement.narrowed(self.variant).limits.num_images_per_prompt * 3 * 4 * self.size[0] * self.size[1]
        return SERVER_BYTES + sum(MODEL_BYTES.values()) + PICTURE_COPIES * pictures

    @property
    def gpu_bytes(self) -> int:
        """Peak on the card."""
        used = sum(need.total for need in self.components.values() if need.on_gpu)
        return round((used + self.contexts) * (1 + MARGIN)) if used else 0

    @property
    def said(self) -> int:
        """Bytes on the card that the compiler said."""
        on_card = [need for need in self.components.values() if need.on_gpu]
        figures = [(need.sources["weights"], need.on_card) for need in on_card]
        figures += [(need.sources["activations"], need.activations) for need in on_card]
        return sum(size for source, size in figures if source == COMPILER)

    @property
    def assumed(self) -> int:
        """Bytes on the card that nobody has seen: contexts and margin."""
        return self.gpu_bytes - sum(need.total for need in self.components.values() if need.on_gpu)

    @property
    def host_bytes(self) -> int:
        """Peak of all processes' resident memory."""
        needs = self.components.values()
        return self.processes + sum(need.streamed if need.on_gpu else need.total for need in needs)

    @property
    def fits(self) -> bool:
        return self.placement.gpu_bytes is None or self.gpu_bytes <= self.placement.gpu_bytes


def predict(variant: Variant, placement: Placement, exported: Path, largest: tuple[int, int] | None = None) -> Forecast:
    """`exported`: root of `<precision>/<component>/`; `largest`: height and width, if smaller than the placement's.

    TensorRT reserves memory for the largest picture and batch, whatever is asked for; ONNX Runtime's arena grows to the largest that
    was asked for: it is forecast the same. Raises `GraphError`, and `EngineError` for a picture that nobody can ask for.
    """
    narrowed = placement.narrowed(variant)
    usual = (variant.defaults.height, variant.defaults.width)
    size = largest or (narrowed.limits.largest if placement.largest_side else usual)
    cells = {axis: pixels // variant.latent_scale for axis, pixels in zip(SIDES, size, strict=True)}
    if largest is not None:
        cells = {axis: cells_of(narrowed, axis, pixels) for axis, pixels in zip(SIDES, largest, strict=True)}
    asked = both_sides(variant, cells)
    limits = bounds(narrowed, placement.denoiser_rows, placement.vae_tile)
    needs = {}
    for component in COMPONENTS:
        sizes = {axis: min(bound.max, asked.get(axis, bound.max)) for axis, bound in limits[component].items()}
        execution = placement.components[component]
        form = fused if execution.runtime.artifact == FUSED_FILE else find
        graph = concrete(form(variant.name, component, exported), both_sides(variant, sizes))
        need = (
            _compiled(variant, component, graph, execution, sizes) if execution.runtime.package else _followed(graph, execution)
        )
        occasional = component in OCCASIONAL and not need.on_gpu
        needs[component] = replace(need, notes=(*need.notes, ONLY_WHILE_USED)) if occasional else need
    return Forecast(variant, placement, size, needs)


def _compiled(variant: Variant, component: str, graph: Graph, execution: Execution, largest: Mapping[str, int]) -> Need:
    """What the compiler said of a plan. Raises `GraphError` where none of that component was ever compiled."""
    found = compiled.figures(variant.name, component, execution.precision, largest)
    if found is None:
        raise GraphError(
            f"{component} of '{variant.name}': nothing is kept of what the compiler says that it needs; measure it:"
            f" python -m benchmarks compiled --variant {variant.name} --component {component} --record"
        )
    counted = live_memory.weight_bytes(graph, MATRIX_BITS.get(execution.precision))
    sources = {"weights": MODEL if found.weight_bytes is None else COMPILER, "activations": COMPILER}
    weights = counted if found.weight_bytes is None else found.weight_bytes
    return Need(execution, weights, found.activation_bytes, sources, found.compiler, found.notes)


def _followed(graph: Graph, execution: Execution) -> Need:
    """What ONNX Runtime needs of a graph."""
    on_cpu = execution.runtime is ORT_CPU
    rules = live_memory.ONNX_RUNTIME if on_cpu else live_memory.ONNX_RUNTIME_CUDA
    rules = replace(rules, half_bits=32) if on_cpu or execution.precision == "fp32" else rules
    weights = live_memory.weight_bytes(graph, MATRIX_BITS.get(execution.precision), rules)
    living = live_memory.peak_bytes(graph, rules)
    sources = {"weights": MODEL, "activations": MODEL}
    return Need(execution, weights, living + min(rules.extension, weights + living), sources)


# ---------------------------------------------------------------------------------------------------------------- command
def document(forecast: Forecast) -> dict[str, object]:
    """The forecast as JSON; sizes in GB of 10^9 bytes."""

    def gb(size: int) -> float:
        return round(size / 1e9, 3)

    limit = forecast.placement.gpu_bytes
    return {
        "variant": forecast.variant.name,
        "placement": forecast.placement.name,
        "largest": list(forecast.size),
        "denoiser_rows": forecast.placement.denoiser_rows,
        "predicted_peak_gb": gb(forecast.gpu_bytes or forecast.host_bytes),
        "limit_gb": None if limit is None else gb(limit),
        "fits": forecast.fits,
        "components": {
            name: {
                "where": "gpu" if need.on_gpu else "host",
                "runtime": need.execution.runtime.name,
                "precision": need.execution.precision,
                "weights_gb": gb(need.weights),
                "weights_on_card_gb": gb(need.on_card if need.on_gpu else 0),
                "activations_gb": gb(need.activations),
                "source": need.source,
                "sources": dict(need.sources),
                "compiler": need.compiler,
                "notes": list(need.notes),
            }
            for name, need in forecast.components.items()
        },
        "gpu": {
            "predicted_peak_gb": gb(forecast.gpu_bytes),
            "compiler_gb": gb(forecast.said),
            "contexts_gb": gb(forecast.contexts),
            "margin": MARGIN,
            "assumed_gb": gb(forecast.assumed),
        },
        "host": {"predicted_peak_gb": gb(forecast.host_bytes), "processes_gb": gb(forecast.processes)},
    }


def table(forecast: Forecast) -> str:
    """The forecast as lines to read."""
    height, width = forecast.size
    lines = [
        f"{forecast.variant.name} on {forecast.placement.name}: pictures up to {height} x {width},"
        f" {forecast.placement.denoiser_rows} denoiser rows, GB of 10^9 bytes",
        f"{'':14} {'where':5} {'runtime':9} {'precision':9} {'weights':>8} {'on card':>8} {'activations':>12} {'sum':>8}  source",
    ]
    for name, need in forecast.components.items():
        where = f"{'GPU' if need.on_gpu else 'host':5} {need.execution.runtime.name:9} {need.execution.precision:9}"
        weights = f"{need.weights / 1e9:8.2f} {need.on_card / 1e9 if need.on_gpu else 0:8.2f}"
        lines.append(f"{name:14} {where} {weights} {need.activations / 1e9:12.2f} {need.total / 1e9:8.2f}  {need.source}")
        lines += [f"{'':14} {note}" for note in need.notes]
    sums = [("processes", "host", forecast.processes), ("host peak", "", forecast.host_bytes)]
    if forecast.gpu_bytes:
        margin = round(forecast.gpu_bytes * MARGIN / (1 + MARGIN))
        sums = [
            ("CUDA contexts", "GPU", forecast.contexts),
            ("margin", "GPU", margin),
            ("GPU peak", "", forecast.gpu_bytes),
            *sums,
        ]
    limit = "" if forecast.placement.gpu_bytes is None else f" of {forecast.placement.gpu_bytes / 1e9:.2f}"
    lines += [f"{name:14} {where:48} {size / 1e9:8.2f}{limit if name == 'GPU peak' else ''}" for name, where, size in sums]
    return "\n".join(lines)


def refusal(forecast: Forecast) -> str:
    """Why a forecast does not fit, and what would change that."""
    limit = forecast.placement.gpu_bytes or 0
    largest, need = max(((n, c) for n, c in forecast.components.items() if c.on_gpu), key=lambda each: each[1].total)
    cures = ["smaller pictures (--largest HEIGHTxWIDTH, the placement's largest_side)"]
    if forecast.placement.denoiser_rows > 1:
        cures.insert(0, "fewer denoiser_rows")
    if forecast.components[VAE_DECODER].on_gpu and forecast.components[VAE_DECODER].activations > limit // 10:
        cures.append("a smaller vae_tile")
    cures.append("encoders on the CPU, or a placement for a larger card")
    if need.weights >= limit:
        precision = need.execution.precision
        cures = [f"its weights alone are more than the card: a smaller precision than {precision}, or a larger card"]
    return (
        f"'{forecast.variant.name}' on '{forecast.placement.name}' needs {forecast.gpu_bytes / 1e9:.2f} GB of the card,"
        f" {limit / 1e9:.2f} GB may be used; the"
        f" largest part is {largest} ({need.weights / 1e9:.2f} GB weights, {need.activations / 1e9:.2f} GB activations);"
        f" change: {'; '.join(cures)}"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser, "sdxl")
    add_placement(parser, None, "only this one (default: all of the variant)")
    add_runtime(parser)
    parser.add_argument(
        "--largest", type=parse_size, metavar="HEIGHTxWIDTH", help="largest picture, if not the placement's own"
    )
    add_components(parser, "root of exported graphs")
    parser.add_argument("--json", action="store_true", help="no table, only the JSON document")
    parser.add_argument(
        "--record", action="store_true", help="trace the graphs, without the values of weights, and keep them with the code"
    )


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    exported = args.components or onnx_folder(variant)
    if args.record:
        files = _record(variant)
        print(json.dumps({"recorded": files}))
        return 0
    chosen = [_placement(variant, args.placement)] if args.placement else [*placements(variant).values()]
    chosen = [placement.on(args.runtime) for placement in chosen] if args.runtime else chosen
    forecasts, beyond = [], []
    for placement in chosen:
        try:
            forecasts.append(predict(variant, placement, exported, args.largest))
        except EngineError as error:  # others may serve such pictures
            beyond.append(EngineError(f"largest: placement '{placement.name}' of '{variant.name}': {error}"))
    if not forecasts:
        raise beyond[0]
    for why in beyond:
        print(f"left out: {why}", file=sys.stderr)
    if not args.json:
        print("\n\n".join(map(table, forecasts)) + "\n", file=sys.stderr)
    documents = [document(each) for each in forecasts]
    print(json.dumps(documents[0] if args.placement else documents))
    refused = [each for each in forecasts if not each.fits]
    for each in refused:
        print(f"error: {refusal(each)}", file=sys.stderr)
    return 1 if refused else 0


def _record(variant: Variant) -> dict[str, str]:
    """Component -> the file that its graph was kept in."""
    from ..onnx.export import outline  # brings torch
    from ..onnx.wanted import Export

    # Graphs do not depend on the values of weights: stand-ins will do.
    wanted = {component: Export(variant, component, "fp16", seeded=True) for component in COMPONENTS}
    return {component: str(record(variant.name, component, outline(export))) for component, export in wanted.items()}


def _placement(variant: Variant, name: str) -> Placement:
    """The variant's placement of that name; for a card for which it has none, its leanest, against that card's memory."""
    known = placements(variant)
    if name in known:
        return known[name]
    leanest = min((each for each in known.values() if each.gpu_bytes), key=lambda placement: placement.gpu_bytes or 0)
    limit = next(p.gpu_bytes for v in VARIANTS.values() for p in placements(v).values() if p.name == name)
    return replace(leanest, name=name, gpu_bytes=limit)
