"""Exported graphs without their weights: what memory planning needs of a network, small enough to be kept with the code.

A graph is read from the exported file where there is one, else from `assets/graphs/`, which `python -m export plan --record` wrote
from exported files. Knows ONNX; nothing of how much memory is what.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from .graph import MODEL

ASSETS = Path(__file__).resolve().parent / "assets" / "graphs"
_SUFFIX = ".onnx.xz"
_SYMBOL = re.compile(r"[A-Za-z_]\w*")


class GraphMissing(RuntimeError):
    """There is neither an exported graph nor a recorded one."""


@dataclass(frozen=True)
class Value:
    """A tensor of a graph. Dims are numbers or expressions over the graph's symbols, e.g. `8*latent_height`."""

    element: int
    """onnx.TensorProto's number of the type."""
    dims: tuple[int | str, ...]


@dataclass(frozen=True)
class Node:
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    nodes: tuple[Node, ...]
    values: Mapping[str, Value]
    """Inputs, outputs and everything in between."""
    weights: Mapping[str, Value]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def find(variant: str, component: str, exported: Path) -> Graph:
    """The graph of a component. `exported`: root of `<precision>/<component>/`. Raises `GraphMissing`."""
    for file in sorted(exported.glob(f"*/{component}/{MODEL}")):
        return read(onnx.load(str(file), load_external_data=False))
    recorded = ASSETS / variant / f"{component}{_SUFFIX}"
    if recorded.exists():
        return read(onnx.load_model_from_string(lzma.decompress(recorded.read_bytes())))
    raise GraphMissing(
        f"{component} of '{variant}': expected {exported}/<precision>/{component}/{MODEL} or {recorded};"
        f" export it: python -m export onnx --variant {variant} --component {component}"
    )


def record(variant: str, component: str, file: Path) -> Path:
    """Keeps the graph of an exported file, without its weights."""
    model = onnx.load(str(file), load_external_data=False)
    for weight in model.graph.initializer:
        for field in ("raw_data", "external_data", "data_location", "float_data", "int32_data", "int64_data"):
            weight.ClearField(field)
    target = ASSETS / variant / f"{component}{_SUFFIX}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(lzma.compress(model.SerializeToString(deterministic=True), preset=9))
    return target


def read(model: onnx.ModelProto) -> Graph:
    """A model whose values all have shapes, as exported ones have."""
    graph = model.graph
    weights = {weight.name: Value(weight.data_type, tuple(weight.dims)) for weight in graph.initializer}
    infos = (*graph.value_info, *graph.input, *graph.output)
    return Graph(
        tuple(Node(n.op_type, tuple(n.input), tuple(name for name in n.output if name)) for n in graph.node),
        {info.name: _value(info) for info in infos if info.name not in weights},
        weights,
        tuple(info.name for info in graph.input),
        tuple(info.name for info in graph.output),
    )


def _value(info: onnx.ValueInfoProto) -> Value:
    tensor = info.type.tensor_type
    return Value(tensor.elem_type, tuple(d.dim_param if d.HasField("dim_param") else d.dim_value for d in tensor.shape.dim))


def symbols(graph: Graph, sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes of every symbol in the graph's shapes, from those of the signature's axes.

    The exporter names sizes anew inside the graph (`s13` for `rows`). What is made of an input in one step tells which is which: the
    one symbol in a dim belongs to the input's axis at that place.
    """
    known = dict(sizes)
    for name in graph.inputs:
        outer = graph.values[name].dims
        for node in graph.nodes:
            inner = graph.values[node.outputs[0]].dims if name in node.inputs else ()
            for axis, dim in zip(outer, inner, strict=False):
                found = set(_SYMBOL.findall(str(dim))) if isinstance(axis, str) and len(inner) == len(outer) else set()
                if len(found) == 1:
                    known.setdefault(found.pop(), sizes[str(axis)])
    used = {s for value in graph.values.values() for dim in value.dims for s in _SYMBOL.findall(str(dim))}
    if used - known.keys():
        raise ValueError(f"graph: sizes of {sorted(used - known.keys())} do not follow from {dict(sizes)}; export it again")
    return known


def size(dim: int | str, known: Mapping[str, int]) -> int:
    """A dim's value."""
    if isinstance(dim, int):
        return dim
    if dim in known:
        return known[dim]
    if not re.fullmatch(r"[\w\s()+*/-]+", dim):
        raise ValueError(f"graph: dim '{dim}' is no expression of sizes")
    return int(eval(dim, {"__builtins__": {}}, dict(known)))
