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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faceclip_serving.contract.names import COMPONENTS, SAMPLER
from faceclip_serving.contract.placements import CUDA_CURE, CUDA_PROVIDER, PLAN_FILE, Placement, PlacementError, placement_of
from faceclip_serving.contract.tensors import Bounds
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from .build import add_selection, purpose_of, selected, this_machine
from .errors import EngineError
from .log_layers import is_fused_product
from .record import Purpose, Record, check_plan
from .shapes import bounds_from, narrower
from .types import UNKNOWN, narrowest, type_of

_KERNELS = (
    ("FP8", r"e4m3|fp8"),
    ("INT8", r"i8i8|imma|int8"),
    ("BF16", r"bf16"),
    ("FP16", r"f16f16|hmma|h16816|h884|h1688|fp16|half"),
    ("FP32", r"f32f32|sgemm|ffma|fp32|tf32"),
)
"""Precision -> what the name of a kernel has in it, more specific first: `bf16` contains `f16`, TF32 kernels read FP32."""

_PRODUCT_TYPES = re.compile(r"conv|correlation|gemm|matrixmultiply|matmul|fusedmultihead|attention|mha|myelin", re.IGNORECASE)
_PRODUCT_NAMES = re.compile(r"conv|gemm|matmul|_mm|mha|attention|einsum", re.IGNORECASE)
_MOVES = re.compile(r"reformat|shuffle|noop|constant|cast|copy|signal|wait|slice|concat", re.IGNORECASE)


@dataclass(frozen=True)
class Rule:
    """What an engine of one precision computes in."""

    types: tuple[str, ...]
    """Of its products, by the names of `types`."""
    largest_other_share: float
    """Of the products, how many may have another type."""
    made_by: str = "python -m export onnx"
    """The command that writes such graphs."""
    exactly: bool = False
    """All of `types`, and nothing else."""


_HALF = ("FP4", "FP8", "INT8", "BF16", "FP16")
_QUANTIZED = "python -m export quantize"

RULES: Mapping[str, Rule] = {
    "fp32": Rule(("FP32",), 0.0, exactly=True),
    "fp16": Rule(_HALF, 0.1),
    "int8w": Rule(_HALF, 0.1),
    "int4w": Rule(_HALF, 0.1, _QUANTIZED),
    "int8": Rule(("INT8",), 0.65, _QUANTIZED),
    "fp8": Rule(("FP8",), 0.65, _QUANTIZED),
}
"""Precision -> what its engines compute in. Every precision that a placement names has one.

A tenth may stay FP32 in fp16: the embeddings of time and size are, and the graph's own check counts those exactly. `int8w` and `int4w` are
about how weights are stored; their products are those of fp16. In int8 and fp8 attention's products and the excluded layers keep the
graph's other type, 20 (FLUX) to 61 (nano) of 100 products in our denoisers, and `export quantize` accepts a tenth of the others too: less
than 65 of 100 together.
"""


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


def check_layers(found: Iterable[Layer], precision: str) -> None:
    """Raises `EngineError` for an engine that does not compute in `precision`, by the number of its products; see `RULES`."""
    rule = RULES.get(precision)
    if rule is None:
        raise EngineError(
            f"precision: expected one of {', '.join(RULES)}, got '{precision}'; add its rule to RULES in {__name__}"
        )
    products = [layer for layer in found if layer.product]
    known = Counter(layer.precision for layer in products if layer.precision != UNKNOWN)
    if not known:
        raise EngineError(f"of {len(products)} products no precision can be told; was the plan built with detailed profiling?")
    if rule.exactly and set(known) != set(rule.types):
        raise EngineError(f"expected all products in {' or '.join(rule.types)}, got {dict(known)}")
    wider = [layer for layer in products if layer.precision not in (*rule.types, UNKNOWN)]
    if len(wider) / known.total() > rule.largest_other_share:
        types = ", ".join(sorted({layer.precision for layer in wider}))
        raise EngineError(
            f"{len(wider)} of {known.total()} products run in {types}, e.g. {', '.join(layer.name for layer in wider[:3])}; expected"
            f" {precision}, which leaves at most {rule.largest_other_share:.0%} to other types than {' or '.join(rule.types)}:"
            f" was the ONNX file made in this precision? `{rule.made_by}` does"
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
    if is_fused_product(name):
        return True
    texts = " ".join((kind, parameters))
    return bool(_PRODUCT_TYPES.search(texts)) or bool(
        _PRODUCT_NAMES.search(name) and ("TacticName" in layer or "Weights" in layer)
    )


def _precision(layer: Mapping[str, Any]) -> str:
    """Of what goes in, since products of half precision may well answer in FP32."""
    inputs = [type_of(_format(tensor)) for tensor in layer.get("Inputs", ()) if isinstance(tensor, dict)]
    narrow = narrowest(inputs)
    if narrow != UNKNOWN:
        return narrow  # a product's type is that of its narrowest factor; an FP32 bias or mask beside it changes nothing
    weights = layer.get("Weights")
    if isinstance(weights, dict) and type_of(str(weights.get("Type", ""))) != UNKNOWN:
        return type_of(str(weights["Type"]))
    tactic = str(layer.get("TacticName", "")).lower()
    kernel = next((precision for precision, pattern in _KERNELS if re.search(pattern, tactic)), UNKNOWN)
    return kernel if kernel != UNKNOWN else next((found for found in inputs if found != UNKNOWN), UNKNOWN)


def _format(tensor: Mapping[str, Any]) -> str:
    return str(tensor.get("Format/Datatype") or tensor.get("Datatype") or tensor.get("Format") or "")


# ---------------------------------------------------------------------------------------------------------------- command
def describe(record: Record, needed: Bounds) -> dict[str, Any]:
    """What a plan is and serves, for people and for JSON."""
    recipe = record.recipe
    return {
        "component": recipe.component,
        "precision": recipe.precision,
        "runtime": recipe.runtime,
        "tensorrt": record.machine.tensorrt,
        "sm": list(recipe.sm),
        "gpu": record.machine.gpu or None,
        "bytes": record.plan_bytes,
        "bounds": recipe.bounds,
        "narrower_than_server": narrower(bounds_from(recipe.bounds), needed),
    }


def check_repository(repository: Path) -> list[Record]:
    """The records of all plans of an assembled repository, each fit for its model, this machine and Triton. Raises `EngineError`."""
    folders = sorted(path.parent for path in repository.glob(f"*/1/**/{PLAN_FILE}"))
    purposes = [served_purpose(folder) for folder in folders]
    places = [(purpose.execution.runtime, purpose.placement.gpu) for purpose in purposes]
    machines = {place: this_machine(*place) for place in dict.fromkeys(places)}
    return [
        check_plan(folder, purpose, machines[place], for_triton=True)
        for folder, purpose, place in zip(folders, purposes, places, strict=True)
    ]


def served_purpose(folder: Path) -> Purpose:
    """What the plan in a folder of an assembled repository is to serve, by its model's config.pbtxt. Raises `EngineError`."""
    hosted = folder.name in COMPONENTS  # else the folder is a model's version
    path = (folder.parents[1] if hosted else folder.parent) / "config.pbtxt"
    config, variant, placement = _placed(path)
    served = [name for name in COMPONENTS if config.name == name or config.name.endswith(f"_{name}")]  # see `model_name`
    if not hosted and not served:
        raise EngineError(
            f"{path}: expected the name of a model with a plan, {', '.join(COMPONENTS)}, got '{config.name}'; assemble it again with"
            " `python -m export repository`"
        )
    return Purpose(variant, placement, folder.name if hosted else served[0])


def check_providers(repository: Path) -> None:
    """That the ONNX Runtime here runs what the samplers of an assembled repository run by it. Raises `EngineError`."""
    import onnxruntime  # here, since other inspections need it not

    known = onnxruntime.get_available_providers()
    for path in sorted(repository.glob(f"*{SAMPLER}/config.pbtxt")):
        config, _, placement = _placed(path)
        emulated = "emulate" in config.parameters  # then the CPU stands for the card
        wanted = {name: each.runtime.providers[:1] for name, each in placement.components.items() if each.runtime.providers}
        lacking = [name for name, (first,) in wanted.items() if first not in known]
        if lacking and not emulated:
            raise EngineError(
                f"{path}: {', '.join(lacking)}: placement '{placement.name}' runs them by {CUDA_PROVIDER}, the ONNX Runtime here has"
                f" {', '.join(known)}; {CUDA_CURE}; an image is built with it by `--build-arg ONNXRUNTIME=cuda`"
            )


def _placed(path: Path) -> tuple[Any, Variant, Placement]:
    """A model's config.pbtxt, and what it says of its variant and placement. Raises `EngineError`."""
    from google.protobuf import text_format  # here, since other inspections need neither
    from tritonclient.grpc import model_config_pb2

    try:
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        said = {key: config.parameters[key].string_value for key in ("variant", "placement")}
        variant = VARIANTS[said["variant"]]
        placement = placement_of(variant, said["placement"])
        if "plans_on" in config.parameters:
            placement = placement.on(config.parameters["plans_on"].string_value)
        if "gpu" in config.parameters:
            placement = replace(placement, gpu=int(config.parameters["gpu"].string_value))
        elif config.instance_group and config.instance_group[0].gpus:  # of Triton's own backends
            placement = replace(placement, gpu=config.instance_group[0].gpus[0])
    except (FileNotFoundError, UnicodeDecodeError, text_format.ParseError, KeyError, ValueError, PlacementError) as error:
        raise EngineError(
            f"{path}: expected the variant and placement that `python -m export repository` writes ({error}); assemble it again"
        ) from None
    return config, variant, placement


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--json", type=Path, metavar="FILE", help="a document of the engine inspector, instead of the plans")
    source.add_argument(
        "--repository",
        type=Path,
        metavar="DIR",
        help="only check that an assembled repository can be served here: its plans, and its providers of ONNX Runtime",
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
        if not any(args.repository.glob("*/config.pbtxt")):
            raise EngineError(
                f"repository: expected a folder made by `python -m export repository`, got {args.repository}, without a model"
            )
        check_providers(args.repository)
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
    chosen = [(purpose_of(args, component), folder) for component, _, folder in selected(args)]
    for purpose, folder in chosen:
        check_plan(folder, purpose)  # before TensorRT is asked for: a missing plan is the commoner mistake
    documents = []
    for purpose, folder in chosen:
        record = check_plan(folder, purpose, this_machine(purpose.execution.runtime), whole=True)
        from .tensorrt import information  # once the package is chosen

        found = layers(information(folder / PLAN_FILE))
        _print_layers(found if args.layers else [])
        documents.append({**describe(record, purpose.bounds()), "layers": summary(found)})
        print(f"{purpose.component}: {documents[-1]['layers']}", file=sys.stderr)
        check_layers(found, purpose.precision)
    print(json.dumps({"variant": args.variant, "placement": args.placement, "engines": documents}))
    return 0


def _print_layers(found: Iterable[Layer]) -> None:
    for layer in found:
        print(f"{layer.precision:8} {'product' if layer.product else '':8} {layer.kind:20} {layer.name}", file=sys.stderr)
