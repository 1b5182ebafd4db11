"""An exported graph at one concrete size: which operators run on which shapes. Weights are never read, only their shapes.

A graph is read from the exported file where there is one, else from `assets/graphs/`, which `python -m export forecast --record` wrote
from exported files: without its weights the largest takes some 50 KB. Knows ONNX; nothing of machines or of how memory is used.
"""

from __future__ import annotations

import lzma
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from onnx import TensorProto

from faceclip_serving.contract.placements import ONNX_FILE

from ..onnx.errors import GraphError

ASSETS = Path(__file__).resolve().parents[1] / "assets" / "graphs"
_SUFFIX = ".onnx.xz"
_SAME_SHAPE = ("Cast", "Identity", "Div", "Mul", "Add", "Sub")
_SYMBOL = re.compile(r"[A-Za-z_]\w*")
_FLOATING: dict[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.DOUBLE: 64,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.FLOAT8E4M3FN: 8,
}
_OTHER: dict[int, int] = {
    TensorProto.INT64: 64,
    TensorProto.INT32: 32,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.BOOL: 8,
}


@dataclass(frozen=True)
class Shaped:
    """A tensor at a concrete size. `bits` of one element; `floating`: whether it is a number that precision applies to."""

    name: str
    dims: tuple[int, ...]
    bits: int
    floating: bool

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    def bytes(self, float_bits: int | None = None) -> int:
        """Its size; `float_bits`: as if numbers were that wide (ONNX Runtime's CPU computes half precision in 32)."""
        bits = float_bits if self.floating and float_bits else self.bits
        return -(-self.elements * bits // 8)


@dataclass(frozen=True)
class Node:
    """One operator: its type, integer attributes, and the names of its tensors; `""` for an input left out."""

    operator: str
    attributes: Mapping[str, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """Operators in the order of the file, and every tensor they read or write."""

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Shaped]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: frozenset[str]
    """Tensors that are stored in the file."""

    def bytes(self, names: frozenset[str] | tuple[str, ...], float_bits: int | None = None) -> int:
        """Size of the named tensors together."""
        return sum(self.tensors[name].bytes(float_bits) for name in names)


def read(path: Path) -> onnx.ModelProto:
    """An exported file, its weights left where they are."""
    return onnx.load(str(path), load_external_data=False)


def find(variant: str, component: str, exported: Path) -> onnx.ModelProto:
    """The graph of a component in FP16, whose shapes are those of every precision: the recorded one, else an exported one.

    `exported`: root of `<precision>/<component>/`. Raises `GraphError` where there is none.
    """
    recorded, path = ASSETS / variant / f"{component}{_SUFFIX}", exported / "fp16" / component / ONNX_FILE
    if recorded.exists():
        return onnx.load_model_from_string(lzma.decompress(recorded.read_bytes()))
    if path.exists():
        return read(path)
    raise GraphError(
        f"{component} of '{variant}': expected {recorded} or {path};"
        f" export it: python -m export onnx --variant {variant} --component {component} --precision fp16"
    )


def record(variant: str, component: str, exported: Path) -> Path:
    """Keeps the graph of a component that was exported in FP16, without its weights. Raises `GraphError`."""
    path = exported / "fp16" / component / ONNX_FILE
    if not path.exists():
        raise GraphError(f"{component} of '{variant}': expected {path}; export it: python -m export onnx --precision fp16")
    model = read(path)
    for weight in model.graph.initializer:
        for field in ("raw_data", "external_data", "data_location", "float_data", "int32_data", "int64_data"):
            weight.ClearField(field)
    target = ASSETS / variant / f"{component}{_SUFFIX}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(lzma.compress(model.SerializeToString(deterministic=True), preset=9))
    return target


def concrete(model: onnx.ModelProto, sizes: Mapping[str, int]) -> Graph:
    """The graph with its signature's axes at `sizes`. Raises `GraphError` for an axis not given, or a shape that stays open."""
    graph = model.graph
    infos = {info.name: info.type.tensor_type for info in (*graph.value_info, *graph.input, *graph.output)}
    known = _symbols(model, infos, sizes)
    open_dims = {name for name, found in infos.items() if "" in _dims(found)}
    tensors = {name: _shaped(name, found, known) for name, found in infos.items() if name not in open_dims}
    tensors.update({weight.name: _tensor(weight.name, tuple(weight.dims), weight.data_type) for weight in graph.initializer})
    for node in graph.node:
        if node.op_type in ("Reshape", "Transpose") and node.output[0] in open_dims and node.input[0] in tensors:
            tensors[node.output[0]] = _flat(node.output[0], tensors[node.input[0]])
    missing = sorted({name for node in graph.node for name in (*node.input, *node.output) if name} - tensors.keys())
    if missing:
        raise GraphError(f"graph: tensors {missing[:5]} have no shape; export it again")
    return Graph(
        tuple(_node(node) for node in graph.node),
        tensors,
        tuple(info.name for info in graph.input),
        tuple(info.name for info in graph.output),
        frozenset(weight.name for weight in graph.initializer),
    )


def _node(node: onnx.NodeProto) -> Node:
    integers = {a.name: a.i for a in node.attribute if a.type == onnx.AttributeProto.INT}
    return Node(node.op_type, integers, tuple(node.input), tuple(name for name in node.output if name))


def _dims(tensor: onnx.TypeProto.Tensor) -> list[int | str]:
    """Numbers, expressions, and `` for what the exporter did not know."""
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim]


def _symbols(model: onnx.ModelProto, infos: Mapping[str, onnx.TypeProto.Tensor], sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes of every symbol in the graph's shapes, from those of the signature's axes.

    The exporter names sizes anew inside the graph (`s13` for `rows`). What is made of an input in one step tells which is which: the
    one symbol in a dim belongs to the input's axis at that place. Outputs may have axes of their own (`height`).
    """
    inputs = {info.name: _dims(info.type.tensor_type) for info in model.graph.input}
    absent = sorted({dim for dims in inputs.values() for dim in dims if isinstance(dim, str)} - sizes.keys())
    if absent:
        raise GraphError(f"graph: it has axes {absent}, sizes are given for {sorted(sizes)}")
    known = dict(sizes)
    for outer, inner in _neighbours(model, infos, inputs):
        for axis, dim in zip(outer, inner, strict=True):
            found = set(_SYMBOL.findall(str(dim))) if isinstance(axis, str) and axis in sizes else set()
            if len(found) == 1:
                symbol = found.pop()
                # A multiple where sizes come in multiples: `2*s34` for a latent side.
                factor = re.fullmatch(rf"(\d+)\*{symbol}", str(dim))
                known.setdefault(symbol, sizes[str(axis)] // (int(factor[1]) if factor else 1))
    outputs = {info.name for info in model.graph.output}
    used = {s for name, info in infos.items() if name not in outputs for dim in _dims(info) for s in _SYMBOL.findall(str(dim))}
    if used - known.keys():
        raise GraphError(f"graph: sizes of {sorted(used - known.keys())} do not follow from {dict(sizes)}; export it again")
    return known


def _neighbours(
    model: onnx.ModelProto, infos: Mapping[str, onnx.TypeProto.Tensor], inputs: Mapping[str, list[int | str]]
) -> Iterator[tuple[list[int | str], list[int | str]]]:
    """Dims of an input or output of the graph, and of a tensor of equal rank one step away; first where the step keeps shapes."""
    outputs = {info.name: _dims(info.type.tensor_type) for info in model.graph.output}
    for keeps in (True, False):
        for node in model.graph.node:
            if (node.op_type in _SAME_SHAPE) != keeps or not node.output:
                continue
            made = node.output[0]
            pairs = [(inputs[name], made) for name in node.input if name in inputs]
            pairs += [(outputs[made], name) for name in node.input if made in outputs and keeps]
            for outer, inner in pairs:
                if inner in infos and len(outer) == len(_dims(infos[inner])):
                    yield outer, _dims(infos[inner])


def _shaped(name: str, tensor: onnx.TypeProto.Tensor, known: Mapping[str, int]) -> Shaped:
    return _tensor(name, tuple(_size(name, dim, known) for dim in _dims(tensor)), tensor.elem_type)


def _tensor(name: str, dims: tuple[int, ...], element: int) -> Shaped:
    return Shaped(name, dims, _FLOATING.get(element) or _OTHER.get(element, 64), element in _FLOATING)


def _flat(name: str, source: Shaped) -> Shaped:
    """A reshaped tensor of which only the number of elements is known, and needed."""
    return replace(source, name=name, dims=(source.elements,))


def _size(name: str, dim: int | str, known: Mapping[str, int]) -> int:
    """A dim's value. Expressions are sums and products of symbols, as the exporter writes them."""
    if isinstance(dim, int):
        return dim
    if dim in known:
        return known[dim]
    if not re.fullmatch(r"[\w\s()+*/-]+", dim) or any(s not in known for s in _SYMBOL.findall(dim)):
        raise GraphError(f"graph: tensor '{name}': the size '{dim}' does not follow from {dict(known)}")
    return int(eval(dim, {"__builtins__": {}}, dict(known)))
