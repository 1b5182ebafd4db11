"""An exported graph at one concrete size: which operators run on which shapes. Weights are never read, only their shapes.

A graph is read from `assets/graphs/`, which `python -m export forecast --record` wrote: without weights the largest takes 76 KB. One
that is not there is read from the exported file. Knows ONNX; nothing of machines or of how memory is used.
"""

from __future__ import annotations

import ast
import functools
import lzma
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from onnx import TensorProto

from faceclip_serving.contract.placements import ONNX_FILE

from ..onnx.errors import GraphError
from ..paths import ASSETS

GRAPHS = ASSETS / "graphs"
_OPERATIONS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}
_FLOATING = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.FLOAT8E4M3FN,
)


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


def find(variant: str, component: str, exported: Path) -> onnx.ModelProto:
    """The graph of a component in FP16, whose shapes are those of every precision: the recorded one, else an exported one.

    `exported`: root of `<precision>/<component>/`. Raises `GraphError` where there is none.
    """
    recorded, path = _recorded(variant, component), exported / "fp16" / component / ONNX_FILE
    if recorded.exists():
        return onnx.load_model_from_string(lzma.decompress(recorded.read_bytes()))
    if path.exists():
        return onnx.load(path, load_external_data=False)
    raise GraphError(
        f"{component} of '{variant}': expected {recorded} or {path};"
        f" export it: python -m export onnx --variant {variant} --component {component} --precision fp16"
    )


def fused(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph that `find` found, with attention as one operator, as it is exported for ONNX Runtime on CUDA. Only to be read: the same
    for every placement that asks."""
    return _fused(model.SerializeToString())


@functools.lru_cache(32)
def _fused(serialised: bytes) -> onnx.ModelProto:
    import onnx_ir as ir  # most forecasts need none of what exporting needs

    from ..onnx.fused_attention import fuse

    form = ir.serde.deserialize_model(onnx.load_model_from_string(serialised))
    fuse(form)
    return ir.serde.serialize_model(form)


def record(variant: str, component: str, outline: bytes) -> Path:
    """Keeps the graph of a component in FP16 with the code. `outline`: serialised ONNX without the values of its weights."""
    target = _recorded(variant, component)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(lzma.compress(outline, preset=9))
    return target


def _recorded(variant: str, component: str) -> Path:
    return GRAPHS / variant / f"{component}.onnx.xz"


def concrete(model: onnx.ModelProto, sizes: Mapping[str, int]) -> Graph:
    """The graph with its signature's axes at `sizes`. Raises `GraphError` for an axis not given, or a shape that stays open."""
    graph = model.graph
    infos = {info.name: info.type.tensor_type for info in (*graph.value_info, *graph.input, *graph.output)}
    axes = {dim for info in graph.input for dim in _dims(info.type.tensor_type) if isinstance(dim, str)}
    if axes - sizes.keys():
        raise GraphError(f"graph: it has axes {sorted(axes - sizes.keys())}, sizes are given for {sorted(sizes)}")
    size = functools.cache(lambda dim: dim if isinstance(dim, int) else _evaluate(dim, sizes))
    known = {name: found for name, found in infos.items() if "" not in _dims(found)}
    tensors = {name: _tensor(name, tuple(map(size, _dims(found))), found.elem_type) for name, found in known.items()}
    tensors |= {weight.name: _tensor(weight.name, tuple(weight.dims), weight.data_type) for weight in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] not in tensors:
            (number,) = (each.t for each in node.attribute if each.name == "value")
            tensors[node.output[0]] = _tensor(node.output[0], tuple(number.dims), number.data_type)
        # Of these the exporter may not know the dims; the number of elements follows, and is all that is needed.
        if node.op_type in ("Reshape", "Transpose") and node.output[0] not in tensors and node.input[0] in tensors:
            source = tensors[node.input[0]]
            tensors[node.output[0]] = replace(source, name=node.output[0], dims=(source.elements,))
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
    """Numbers, expressions of axes, and `` for what the exporter did not know."""
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim]


def _tensor(name: str, dims: tuple[int, ...], element: int) -> Shaped:
    return Shaped(name, dims, 8 * onnx.helper.tensor_dtype_to_np_dtype(element).itemsize, element in _FLOATING)


def _evaluate(dim: str, sizes: Mapping[str, int]) -> int:
    """A dim's value: sums, products and whole quotients of axes, as `4*rows` or `(latent_height - 1)//2 + 1`."""

    unknown = GraphError(f"graph: the size '{dim}' does not follow from {dict(sizes)}; export it again")

    def value(node: ast.AST) -> int:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id=axis) if axis in sizes:
                return sizes[axis]
            case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _OPERATIONS:
                return _OPERATIONS[type(operation)](value(left), value(right))
        raise unknown

    try:
        return value(ast.parse(dim, mode="eval").body)
    except SyntaxError as error:
        raise unknown from error
