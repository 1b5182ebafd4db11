"""What only a machine with a GPU can tell of a variant, in one go: error against torch in FP32, seconds and memory.

Components are exported in FP16 with seeded weights, and run by torch (eager and compiled), ONNX Runtime and TensorRT, at every size
and batch; then a picture is drawn on a small card. Without a GPU only forecasts, counted work and the engines' shapes are told.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.commandline import add_variant
from export.engine.shapes import bounds_document, engine_bounds, parse_size
from export.paths import onnx_folder
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import placements
from faceclip_serving.contract.signatures import COMPONENTS, components
from faceclip_serving.contract.variant import Variant
from faceclip_serving.contract.variants import VARIANTS
from faceclip_serving.models.tensorrt_package import installed as installed_tensorrt
from faceclip_serving.models.tensorrt_package import use

from ..measure import gpu
from ..measure.own_process import run_module
from ..measure.report import emit, say
from ..measure.table import table
from . import small_card, ways
from .ways import EXACT_WAYS, ONNXRUNTIME, PRECISION, WAYS

SIZES, BATCHES = ("1024x1024", "1152x864"), (1, 2, 4, 8)
SMALL_CARD = "8gb"
TIMEOUT_S = 3600.0
"""Of one component by one way; building an engine is the longest."""


def cases(variant: Variant, component: str, sizes: Sequence[tuple[int, int]], batches: Sequence[int]) -> list[dict[str, int]]:
    """Named axes of a component's inputs, at every size and batch, each combination once; one face per call of the text encoder."""
    axes = {axis for tensor in components(variant)[component].inputs for axis in tensor.dynamic_axes.values()}
    found = []
    for height, width in sizes:
        for batch in batches:
            cells = {"latent_height": height // variant.latent_scale, "latent_width": width // variant.latent_scale}
            every = {"rows": batch, "images": batch, "faces": 1 if "rows" in axes else batch, **cells}
            case = {axis: size for axis, size in every.items() if axis in axes}
            if case not in found:
                found.append(case)
    return found


def installed() -> dict[str, Any]:
    """GPUs, and which ways of running a component there are here."""
    import onnxruntime
    import torch

    try:
        runtime = installed_tensorrt()
        tensorrt = f"{runtime.name} {use(runtime)}"
    except UserError as error:
        tensorrt = f"missing: {error}"
    return {
        "gpus": gpu.devices(),
        "torch_cuda": torch.version.cuda,
        "torch_sees": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "onnxruntime_providers": onnxruntime.get_available_providers(),
        "tensorrt": tensorrt,
    }


def without_gpu(variant: Variant, sizes: Sequence[tuple[int, int]], batches: Sequence[int], exported: Path) -> dict[str, Any]:
    """Forecasts of every placement, counted work of every case, shapes of every engine."""
    from export.forecast.forecast import document, predict  # torch
    from export.forecast.shapes import find

    forecasts, counted, engines = {}, {}, {}
    for name, placement in placements(variant).items():
        forecasts[name] = document(predict(variant, placement, exported))
        engines[name] = {
            component: bounds_document(
                engine_bounds(placement.narrowed(variant), component, placement.denoiser_rows, vae_tile=placement.vae_tile)
            )
            for component, execution in placement.components.items()
            if execution.runtime.package
        }
    for component in COMPONENTS:
        model = find(variant.name, component, exported)
        counted[component] = [_counted(variant, model, case) for case in cases(variant, component, sizes, batches)]
    return {"forecasts": forecasts, "counted": counted, "engine_shapes": {name: each for name, each in engines.items() if each}}


def _counted(variant: Variant, model: Any, case: Mapping[str, int]) -> dict[str, Any]:
    from export.forecast.cost import graph_cost
    from export.forecast.shapes import concrete

    scale = variant.latent_scale
    pixels = {side: case[f"latent_{side}"] * scale for side in ("height", "width") if f"latent_{side}" in case}
    cost = graph_cost(concrete(model, {**case, **pixels}))
    return {
        "sizes": dict(case),
        "flops": cost.flops,
        "weight_bytes": cost.weight_bytes,
        "activation_peak_bytes": cost.activation_peak_bytes,
    }


def with_gpu(
    variant: Variant,
    chosen: Mapping[str, list[dict[str, int]]],
    wanted: Sequence[str],
    exported: Path,
    repeats: int,
    device: str,
) -> dict[str, Any]:
    """Exports what is missing, then every component by every way."""
    from export.onnx.export import export_components  # torch
    from export.onnx.wanted import Export

    folder = exported / PRECISION
    exports = [Export(variant, component, PRECISION, seeded=True) for component in chosen]
    for metadata in export_components(exports, exported):
        say(f"{metadata['component']}: exported")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as references:
        for component, of_component in chosen.items():
            found[component] = {"tolerance": ways.tolerance(variant, component)}
            for way in wanted:
                place = str((folder / component).resolve())
                trial = ways.WayTrial(variant.name, component, way, place, references, tuple(of_component), repeats, device)
                found[component][way] = run_module(ways.__name__, trial, TIMEOUT_S)
                say(f"{component} by {way}: {found[component][way].get('error', 'done')}")
    return found


def on_small_card(variant: Variant, sizes: Sequence[tuple[int, int]], wanted: Sequence[str], exported: Path) -> dict[str, Any]:
    """Two guided steps and a decode within the memory of the placement `SMALL_CARD`, by the ways that run graphs."""
    placement = placements(variant).get(SMALL_CARD)
    if placement is None or placement.gpu_bytes is None:
        return {"not_run": f"'{variant.name}' has no placement '{SMALL_CARD}'"}
    found: dict[str, Any] = {}
    with small_card.hold(placement.gpu_bytes) as taken:
        for way in (way for way in wanted if way in EXACT_WAYS):
            for height, width in sizes:
                folder = str((exported / PRECISION).resolve())
                name = f"{way} {height}x{width}"
                trial = small_card.SmallCardTrial(variant.name, placement.name, way, folder, height, width, steps=2)
                found[name] = run_module(small_card.__name__, trial, TIMEOUT_S)
                say(f"{SMALL_CARD}, {name}: {found[name].get('error', 'done')}")
    return {"limit_bytes": placement.gpu_bytes, "occupied_bytes": taken, **found}


def failures(found: Mapping[str, Any], small: Mapping[str, Any]) -> list[str]:
    """What went wrong: ways that did not run, graphs beyond their tolerance. A case without memory counts on no card."""
    wrong = [
        f"{SMALL_CARD}: {name}: {each['error']}" for name, each in small.items() if isinstance(each, dict) and "error" in each
    ]
    for component, of_component in found.items():
        for way in (way for way in WAYS if way in of_component):
            measured = of_component[way]
            if "error" in measured:
                wrong.append(f"{component} by {way}: {measured['error']}")
                continue
            for case in measured["cases"]:
                error = case.get("error_of_largest")
                if way in EXACT_WAYS and error is not None and not error <= of_component["tolerance"]:
                    wrong.append(
                        f"{component} by {way} at {case['sizes']}: error {error}, tolerance {of_component['tolerance']}"
                    )
    return wrong


def shown(found: Mapping[str, Any]) -> str:
    """A line per component, case and way."""
    rows: list[list[str | float | None]] = []
    for component, of_component in found.items():
        for way in (way for way in WAYS if "cases" in of_component.get(way, {})):
            for case in of_component[way]["cases"]:
                sizes = " ".join(f"{axis}={size}" for axis, size in case["sizes"].items())
                seconds, held = case.get("median_s"), case.get("gpu_peak_bytes")
                row = [None if seconds is None else seconds * 1e3, None if held is None else held / 1e9]
                rows.append([f"{component} {sizes}: {way}", *row, case.get("error_of_largest"), case.get("error", "")])
    return table(["what", "ms", "GPU GB", "error", ""], rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser, "sdxl")
    parser.add_argument("--size", nargs="+", type=parse_size, default=[parse_size(size) for size in SIZES], metavar="HxW")
    parser.add_argument("--batch", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--component", choices=COMPONENTS, action="append", help="only this one; may be repeated")
    parser.add_argument("--skip", choices=WAYS, action="append", default=[], help="a way to leave out; may be repeated")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each case (default: %(default)s)")
    parser.add_argument("--rehearse", action="store_true", help="take all steps on the CPU, in FP32; for a tiny variant")


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    exported = onnx_folder(variant)
    here = installed()
    has_gpu = bool(here["torch_sees"])
    document: dict[str, Any] = {"variant": variant.name, "gpu": has_gpu, "rehearsal": args.rehearse, "installed": here}
    wanted = [way for way in WAYS if way not in args.skip and (way != ways.TENSORRT or "missing" not in here["tensorrt"])]
    if ONNXRUNTIME in wanted and not args.rehearse and "CUDAExecutionProvider" not in here["onnxruntime_providers"]:
        wanted.remove(ONNXRUNTIME)
    try:
        document |= without_gpu(variant, args.size, args.batch, exported)
    except UserError as error:
        say(f"counting left out: {error}")
    found: dict[str, Any] = {}
    small: dict[str, Any] = {}
    if has_gpu or args.rehearse:
        chosen = {name: cases(variant, name, args.size, args.batch) for name in args.component or COMPONENTS}
        found = with_gpu(variant, chosen, wanted, exported, args.repeats, "cpu" if args.rehearse else "cuda")
        print(shown(found), file=sys.stderr)
    if has_gpu and not args.rehearse:
        small = on_small_card(variant, args.size, wanted, exported)
    if not has_gpu:
        print("no GPU here (torch sees none): what needs one was left out; run this on a machine that has one", file=sys.stderr)
    wrong = failures(found, small)
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    absent = [way for way in WAYS if way not in wanted]
    emit(
        f"gpu-verify-{variant.name}",
        {**document, "components": found, "small_card": small, "ways": wanted, "absent": absent, "failures": wrong},
    )
    return 1 if wrong else 0
