"""How large the values inside a network become, beside the largest that half precision holds (65504).

The FP32 graph is drawn with: every floating-point tensor in it gets a largest absolute value, while whole pictures are made from
prompts (see `calibration`). What would overflow must be in FP32 in the FP16 graph, by its operator (`precision.ONNX_ISLANDS`), by its
layer (`Network.wide`), or be scaled down before (`Network.fit_half`); a tensor that is none of these is named, and is an error.
Knows ONNX graphs and names; nothing of what a layer computes.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from faceclip_serving.contract.components import components
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.names import COMPONENTS, VAE_ENCODER
from faceclip_serving.contract.placements import ONNX_FILE
from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..commandline import add_variant
from ..onnx.draw import Run
from ..onnx.graph_precision import ONNX_ISLANDS, ONNX_PRODUCTS
from ..outputs import require_file
from ..paths import onnx_folder
from .sitting import Sitting, add_sitting, sitting_from

if TYPE_CHECKING:
    import onnxruntime

    from ..networks.components import Network

HALF_MAX = float(np.finfo(np.float16).max)
_LARGEST = "largest of "
_SHOWN = 10


class RangeError(UserError):
    """A tensor does not fit half precision and nothing keeps it out of it, or a graph to measure is missing."""


@dataclass(frozen=True)
class Watched:
    """One tensor of a graph: where it comes from."""

    name: str
    operator: str
    layer: str
    """The weight that the operator uses, or the last one before it on its way."""


@dataclass(frozen=True)
class Extreme:
    """A tensor and its largest absolute value over all calls."""

    tensor: Watched
    largest: float
    kept: str
    """What keeps it out of half precision: `operator`, a declared layer, `rescaled`, or nothing."""

    @property
    def margin(self) -> float:
        """How many times larger it could become before half precision overflows."""
        return HALF_MAX / self.largest if self.largest else float("inf")


def watch(path: Path, signature_outputs: list[str]) -> tuple[Run, dict[str, float], list[Watched]]:
    """The graph as a function, the largest values that it has seen so far, and the tensors they are of.

    Each tensor ends in a maximum of its own, so no more of them are in memory at a time than without.
    """
    model = onnx.load(str(path), load_external_data=False)
    watched = floating_tensors(model)
    for number, tensor in enumerate(watched):
        model.graph.node.append(helper.make_node("Abs", [tensor.name], [f"abs {number}"]))
        model.graph.node.append(helper.make_node("ReduceMax", [f"abs {number}"], [f"{_LARGEST}{number}"], keepdims=0))
        model.graph.output.append(helper.make_tensor_value_info(f"{_LARGEST}{number}", TensorProto.FLOAT, []))
    session = session_beside(model, path)
    largest = dict.fromkeys((tensor.name for tensor in watched), 0.0)
    names = [*signature_outputs, *(f"{_LARGEST}{number}" for number in range(len(watched)))]

    def run(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        values = session.run(names, dict(arrays))
        for tensor, value in zip(watched, values[len(signature_outputs) :], strict=True):
            largest[tensor.name] = float(np.fmax(largest[tensor.name], value)) if np.isfinite(value) else float("inf")
        return dict(zip(signature_outputs, values, strict=False))

    return run, largest, watched


def floating_tensors(model: onnx.ModelProto) -> list[Watched]:
    """Every FP32 tensor that the graph computes, with the layer it belongs to."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    layer_of: dict[str, str] = {}
    found = []
    for node in graph.node:
        own = [name for name in node.input if name in weights and "." in name]
        before = [layer_of[name] for name in node.input if name in layer_of]
        layer = own[0] if own else before[-1] if before else ""
        for output in node.output:
            layer_of[output] = layer
            if types.get(output) == TensorProto.FLOAT:
                found.append(Watched(output, node.op_type, layer))
    return found


def judge(watched: list[Watched], largest: Mapping[str, float], row: Network) -> list[Extreme]:
    """Each tensor with its largest value, and what keeps it out of half precision, the largest first."""

    def kept(tensor: Watched) -> str:
        if tensor.operator in ONNX_ISLANDS:
            return "operator"
        starts = (
            row.fp32 if tensor.operator in ONNX_PRODUCTS else (*row.fp32, *row.wide)
        )  # a wide layer's own product is in half
        declared = next((start for start in starts if fnmatch.fnmatchcase(tensor.layer, f"{start}*")), "")
        return declared or ("rescaled" if row.fit_half is not None else "")

    found = [Extreme(tensor, largest[tensor.name], kept(tensor)) for tensor in watched]
    return sorted(found, key=lambda extreme: -extreme.largest)


def report(extremes: list[Extreme], row: Network) -> dict[str, Any]:
    """As JSON has it: what needs FP32 and is not kept there, what was declared and how large it is, the largest tensors."""
    exposed = [extreme for extreme in extremes if not extreme.kept]
    return {
        "tensors": len(extremes),
        "largest": _described(extremes[0]),
        "largest_in_half": _described(exposed[0]) if exposed else None,
        "needs_fp32": [_described(extreme) for extreme in exposed if not extreme.largest < HALF_MAX],
        "declared": {start: _island([each for each in extremes if each.kept == start]) for start in (*row.fp32, *row.wide)},
        "rescaled": row.fit_half is not None,
        "top": [_described(extreme) for extreme in extremes[:_SHOWN]],
    }


def measure(variant: Variant, folder: Path, names: list[str], sitting: Sitting) -> dict[str, dict[str, Any]]:
    """Component -> its report. `folder`: <component>/model.onnx in FP32. Raises `RangeError` where a graph is missing."""
    missing = [name for name in COMPONENTS if not (folder / name / ONNX_FILE).exists()]
    if missing:
        raise RangeError(
            f"{', '.join(missing)}: expected {folder}/<component>/{ONNX_FILE} in FP32; make them with"
            f" `python -m export onnx --variant {variant.name} --precision fp32`"
        )
    from ..networks.components import network  # here, since torch takes seconds to import
    from ..onnx.parity import onnx_run
    from .calibration import draw_all

    nets = components(variant)
    found: dict[str, dict[str, Any]] = {}

    @contextmanager
    def opened(component: str) -> Iterator[Run]:
        path = folder / component / ONNX_FILE
        if component not in names:
            yield onnx_run(path, nets[component])
            return
        print(f"{component}: measuring", file=sys.stderr)
        run, largest, watched = watch(path, [tensor.name for tensor in nets[component].outputs])
        yield run
        row = network(variant, component)
        found[component] = report(judge(watched, largest, row), row)

    pictures = draw_all(variant, sitting, opened)
    if VAE_ENCODER in names:
        with opened(VAE_ENCODER) as encode:
            for picture in pictures:
                encode({"picture": picture})
    return found


def require_fit(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises `RangeError` for tensors beyond half precision that nothing keeps out of it."""
    lines = [
        f"{component}: '{tensor['tensor']}' ({tensor['operator']}, layer {tensor['layer']}) reaches {tensor['largest']:.4g}"
        for component, document in found.items()
        for tensor in document["needs_fp32"][:_SHOWN]
    ]
    if lines:
        raise RangeError(
            "half precision ends at 65504: make these layers wide (export/networks/wide.py, Network.wide in components.py)\n  "
            + "\n  ".join(lines)
        )


def session_beside(model: onnx.ModelProto, path: Path) -> onnxruntime.InferenceSession:
    """Runs a changed form of the graph in the file `path`, with the weights beside that."""
    import onnxruntime  # here, as it takes a second

    options = onnxruntime.SessionOptions()
    # A fused tensor is not there to measure.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    beside = path.with_name(f".{path.name}.{os.getpid()}.watched")  # its weights are found beside it
    require_file(beside)
    try:
        beside.write_bytes(model.SerializeToString())
        return onnxruntime.InferenceSession(str(beside), options, providers=["CPUExecutionProvider"])
    finally:
        beside.unlink(missing_ok=True)


def _described(extreme: Extreme) -> dict[str, Any]:
    return {
        "tensor": extreme.tensor.name,
        "operator": extreme.tensor.operator,
        "layer": extreme.tensor.layer,
        "largest": float(f"{extreme.largest:.5g}"),
        "margin": float(f"{extreme.margin:.4g}"),
        "kept": extreme.kept,
    }


def _island(extremes: list[Extreme]) -> dict[str, Any]:
    """A declared layer. `by_range`: whether its values alone demand FP32; others stand there for their precision."""
    top = extremes[0].largest if extremes else 0.0
    return {"tensors": len(extremes), "largest": float(f"{top:.5g}"), "by_range": not top < HALF_MAX}


# ---------------------------------------------------------------------------------------------------------------- command
def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    parser.add_argument("--component", choices=COMPONENTS, action="append", help="only this one; may be repeated")
    parser.add_argument("--components", type=Path, metavar="DIR", help="FP32 ONNX files (default: build/onnx/<variant>/fp32)")
    add_sitting(parser)


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    folder = args.components or onnx_folder(variant) / "fp32"
    found = measure(variant, folder, args.component or list(COMPONENTS), sitting_from(args))
    print(json.dumps({"variant": variant.name, "half_max": HALF_MAX, "components": found}))
    require_fit(found)
    return 0
