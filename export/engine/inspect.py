"""Which precision each layer of an engine runs in, so that an engine which is FP32 by accident is noticed.

Reads the JSON of TensorRT's engine inspector; where a plan is at hand, gets it from there. What tells a layer's precision, best
first: the tensors that it multiplies, the type of its weights, the name of its kernel. A layer that none of them tells is
`unknown` and never counted as what was hoped for. Knows the inspector's document; nothing of networks.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faceclip_serving.contract.placements import PLAN_FILE, placement_of
from faceclip_serving.contract.signatures import bounds
from faceclip_serving.contract.tensors import Bounds
from faceclip_serving.contract.variants import VARIANTS

from .build import add_selection, selected, this_machine
from .errors import EngineError
from .record import Record, check_plan
from .shapes import bounds_from, narrower
from .tensorrt import information

UNKNOWN = "unknown"

# What we call a type, narrowest first -> how the inspector's versions write it within a longer text, as `Channel major FP16 format
# where channel % 8 == 0`.
_TYPES = (
    ("FP4", r"\bFP4\b|\bE2M1\b"),
    ("FP8", r"\bFP8\b|\bE4M3\b|\bFP8E4M3\b"),
    ("INT8", r"\bINT8\b"),
    ("BF16", r"\bBF16\b|\bBFLOAT16\b"),
    ("FP16", r"\bFP16\b|\bHALF\b|\bFLOAT16\b"),
    ("FP32", r"\bFP32\b|\bFLOAT\b|\bFLOAT32\b"),
    ("INT64", r"\bINT64\b"),
    ("INT32", r"\bINT32\b"),
    ("BOOL", r"\bBOOL\b"),
)
_INDICES = ("INT64", "INT32", "BOOL")
"""Types that are counted with, not computed in."""

_KERNELS = (
    ("FP8", r"e4m3|fp8"),
    ("INT8", r"i8i8|imma|int8"),
    ("BF16", r"bf16"),
    ("FP16", r"f16f16|hmma|h16816|h884|h1688|fp16|half"),
    ("FP32", r"f32f32|sgemm|ffma|fp32|tf32"),
)
"""Precision -> what the name of a kernel has in it, more specific first: `bf16` contains `f16`, TF32 kernels read FP32."""

_PRODUCT_TYPES = re.compile(r"conv|gemm|matrixmultiply|matmul|fusedmultihead|attention|mha|myelin", re.IGNORECASE)
_PRODUCT_NAMES = re.compile(r"conv|gemm|matmul|_mm|mha|attention|einsum", re.IGNORECASE)
_MOVES = re.compile(r"reformat|shuffle|noop|constant|cast|copy|signal|wait|slice|concat", re.IGNORECASE)


@dataclass(frozen=True)
class Layer:
    name: str
    kind: str
    precision: str
    product: bool
    """Convolution, matrix product or attention: where the time goes and the precision counts."""


def layers(document: Mapping[str, Any]) -> list[Layer]:
    """Every layer of the inspector's document. Raises `EngineError` where it holds names only."""
    found = document.get("Layers")
    if not isinstance(found, list) or not found:
        raise EngineError("the inspector's document has no 'Layers'; expected the JSON of get_engine_information")
    if not all(isinstance(layer, dict) for layer in found):
        raise EngineError(
            "the inspector tells layer names only: the plan was not built with detailed profiling; build it again"
        )
    return [_layer(layer) for layer in found]


def summary(found: Iterable[Layer]) -> dict[str, dict[str, int]]:
    """`products` and `others` -> precision -> number of layers."""
    counts = {"products": Counter[str](), "others": Counter[str]()}
    for layer in found:
        counts["products" if layer.product else "others"][layer.precision] += 1
    return {group: dict(sorted(counter.items())) for group, counter in counts.items()}


def check_layers(found: Iterable[Layer], precision: str, largest_fp32_share: float = 0.1) -> None:
    """Raises `EngineError` for an engine that does not compute in `precision`, fp32 or fp16, by the number of its products.

    A tenth may stay FP32 in fp16: the embeddings of time and size are, and the graph's own check counts those exactly.
    """
    products = [layer for layer in found if layer.product]
    known = Counter(layer.precision for layer in products if layer.precision != UNKNOWN)
    if not known:
        raise EngineError(f"of {len(products)} products no precision can be told; was the plan built with detailed profiling?")
    if precision == "fp32":
        if set(known) != {"FP32"}:
            raise EngineError(f"expected all products in FP32, got {dict(known)}")
    elif known["FP32"] / known.total() > largest_fp32_share:
        examples = [layer.name for layer in products if layer.precision == "FP32"][:3]
        raise EngineError(
            f"{known['FP32']} of {known.total()} products run in FP32, e.g. {', '.join(examples)}; expected {precision}:"
            " was the ONNX file exported with this --precision?"
        )


def _layer(layer: Mapping[str, Any]) -> Layer:
    name = str(layer.get("Name", "?"))
    kind = str(layer.get("LayerType", "?"))
    return Layer(name, kind, _precision(layer), _is_product(name, kind, str(layer.get("ParameterType", "")), layer))


def _is_product(name: str, kind: str, parameters: str, layer: Mapping[str, Any]) -> bool:
    if _MOVES.search(kind):
        return False
    if kind.lower() == "kgen":  # a generated kernel of pointwise operations, unless its own name says more
        return bool(re.search(r"mha|attention", name, re.IGNORECASE))
    texts = " ".join((kind, parameters))
    return bool(_PRODUCT_TYPES.search(texts)) or bool(
        _PRODUCT_NAMES.search(name) and ("TacticName" in layer or "Weights" in layer)
    )


def _precision(layer: Mapping[str, Any]) -> str:
    """Of what goes in, since products of half precision may well answer in FP32."""
    inputs = [_type(_format(tensor)) for tensor in layer.get("Inputs", ()) if isinstance(tensor, dict)]
    factors = [found for found in inputs if found != UNKNOWN and found not in _INDICES]
    if factors:
        # A product's type is that of its narrowest factor; an FP32 bias or mask beside it changes nothing.
        return min(factors, key=[name for name, _ in _TYPES].index)
    weights = layer.get("Weights")
    if isinstance(weights, dict) and _type(str(weights.get("Type", ""))) != UNKNOWN:
        return _type(str(weights["Type"]))
    tactic = str(layer.get("TacticName", "")).lower()
    kernel = next((precision for precision, pattern in _KERNELS if re.search(pattern, tactic)), UNKNOWN)
    return kernel if kernel != UNKNOWN else next((found for found in inputs if found != UNKNOWN), UNKNOWN)


def _format(tensor: Mapping[str, Any]) -> str:
    return str(tensor.get("Format/Datatype") or tensor.get("Datatype") or tensor.get("Format") or "")


def _type(text: str) -> str:
    return next((name for name, pattern in _TYPES if re.search(pattern, text.upper())), UNKNOWN)


# ---------------------------------------------------------------------------------------------------------------- command
def describe(record: Record, needed: Bounds) -> dict[str, Any]:
    """What a plan is and serves, for people and for JSON."""
    recipe = record.recipe
    return {
        "component": recipe.component,
        "precision": recipe.precision,
        "tensorrt": record.machine.tensorrt,
        "gpu": record.machine.gpu,
        "bytes": record.plan_bytes,
        "bounds": recipe.bounds,
        "narrower_than_server": narrower(bounds_from(recipe.bounds), needed),
    }


def check_repository(repository: Path) -> list[Record]:
    """The records of all plans of an assembled repository, each fit for this machine and for Triton. Raises `EngineError`."""
    folders = sorted(path.parent for path in repository.glob(f"*/*/{PLAN_FILE}"))
    machine = this_machine() if folders else None
    return [check_plan(folder, machine, for_triton=True) for folder in folders]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--json", type=Path, metavar="FILE", help="a document of the engine inspector, instead of the plans")
    source.add_argument(
        "--repository", type=Path, metavar="DIR", help="only check that the plans of an assembled repository load here"
    )
    parser.add_argument("--layers", action="store_true", help="every layer, not only the counts")


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except ValueError as error:
        raise EngineError(f"{path}: expected the engine inspector's JSON, got other text ({error})") from None
    if not isinstance(document, dict):
        raise EngineError(f"{path}: expected the engine inspector's JSON object, got {type(document).__name__}")
    return document


def run(args: argparse.Namespace) -> int:
    if args.repository is not None:
        records = check_repository(args.repository)
        print(json.dumps({"repository": str(args.repository), "plans": [record.recipe.component for record in records]}))
        return 0
    if args.json is not None:
        found = layers(_document(args.json))
        _print_layers(found if args.layers else [])
        print(json.dumps({"document": str(args.json), "layers": summary(found)}))
        return 0
    return inspect_plans(args)


def inspect_plans(args: argparse.Namespace) -> int:
    """Every chosen plan's layers, counted and checked."""
    placement = placement_of(VARIANTS[args.variant], args.placement)
    variant = placement.narrowed(VARIANTS[args.variant])
    chosen = selected(args)
    needed = bounds(variant, placement.denoiser_rows, placement.vae_tile)
    records = [check_plan(folder) for _, _, folder in chosen]
    machine = this_machine()
    documents = []
    for (component, precision, folder), record in zip(chosen, records, strict=True):
        check_plan(folder, machine)
        found = layers(information(folder / PLAN_FILE))
        _print_layers(found if args.layers else [])
        documents.append({**describe(record, needed[component]), "layers": summary(found)})
        print(f"{component}: {documents[-1]['layers']}", file=sys.stderr)
        check_layers(found, precision)
    print(json.dumps({"variant": variant.name, "placement": placement.name, "engines": documents}))
    return 0


def _print_layers(found: Iterable[Layer]) -> None:
    for layer in found:
        print(f"{layer.precision:8} {'product' if layer.product else '':8} {layer.kind:20} {layer.name}", file=sys.stderr)
