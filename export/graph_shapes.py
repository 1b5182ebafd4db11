"""An exported graph at one concrete size: which operators run on which shapes. Weights are never read, only their shapes.

`concrete` is what counting FLOPs, bytes and memory starts from. Knows ONNX; nothing of components or machines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
from onnxscript import optimizer

from .graph import GraphError

_KEEPS_SHAPE = ("GroupNormalization", "RMSNormalization")
"""Operators that ONNX defines as functions, whose shapes its inference therefore does not know: those of the first input."""
_ROUNDS = 4
Originals = dict[int, tuple[str, tuple[ir.Value | None, ...]]]
"""Operator and inputs of nodes that something simpler stands in for while shapes are inferred, by identity."""


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


def concrete(path: Path, sizes: Mapping[str, int]) -> Graph:
    """The graph in `path` with its named axes at `sizes`. Raises `GraphError` for an axis not given, or a shape that stays open."""
    model = ir.load(path)
    for value in model.graph.inputs:
        value.shape = ir.Shape([_size(path, value, axis, sizes) for axis in value.shape or ()])
    stood_in: Originals = {}
    for node in model.graph:
        for value in node.outputs:
            value.shape = None  # what the exporter knew was symbolic
        if node.op_type in _KEEPS_SHAPE and node.domain == "":
            stood_in[id(node)] = (node.op_type, tuple(node.inputs))
            node.op_type = "Relu"
            node.resize_inputs(1)
            node.attributes.clear()
    for _ in range(_ROUNDS):
        optimizer.fold_constants(model, onnx_shape_inference=True)  # shapes that are computed from shapes become numbers
        if not _open(model):
            return _graph(model, stood_in)
    raise GraphError(f"{path}: no shape could be inferred for {', '.join(_open(model)[:5])}; an operator without shape inference?")


def _size(path: Path, value: ir.Value, axis: int | ir.SymbolicDim, sizes: Mapping[str, int]) -> int:
    if isinstance(axis, int):
        return axis
    name = str(axis.value)
    if name not in sizes:
        raise GraphError(f"{path}: input '{value.name}' has an axis '{name}', sizes are given for {sorted(sizes)}")
    return sizes[name]


def _open(model: ir.Model) -> list[str]:
    """Outputs of operators, whose shape is not numbers throughout."""
    values = (value for node in model.graph for value in node.outputs if value.name)
    return [
        f"{value.producer().op_type} '{value.name}'"  # type: ignore[union-attr]
        for value in values
        if value.shape is None or any(not isinstance(axis, int) for axis in value.shape)
    ]


def _graph(model: ir.Model, stood_in: Originals) -> Graph:
    graph = model.graph
    constants = [value for node in graph if node.op_type == "Constant" for value in node.outputs]
    originals = {id(node): stood_in.get(id(node), (node.op_type, tuple(node.inputs))) for node in graph}
    kept = (value for _, inputs in stood_in.values() for value in inputs if value is not None and value.const_value is not None)
    stored = [*graph.initializers.values(), *constants, *kept]
    made = [value for node in graph for value in node.outputs if value.name]
    nodes = tuple(
        Node(
            originals[id(node)][0],
            {name: found.value for name, found in node.attributes.items() if isinstance(found, ir.Attr) and _is_int(found)},
            tuple(_name(value) for value in originals[id(node)][1]),
            tuple(_name(value) for value in node.outputs),
        )
        for node in graph
        if node.op_type != "Constant"
    )
    used = {name for node in nodes for name in node.inputs}
    return Graph(
        nodes,
        {_name(value): _shaped(value) for value in (*graph.inputs, *stored, *made)},
        tuple(_name(value) for value in graph.inputs),
        tuple(_name(value) for value in graph.outputs),
        frozenset(_name(value) for value in stored) & used,
    )


def _is_int(attribute: ir.Attr) -> bool:
    return attribute.type == ir.AttributeType.INT


def _name(value: ir.Value | None) -> str:
    return "" if value is None else value.name or ""


def _shaped(value: ir.Value) -> Shaped:
    constant: Any = value.const_value
    dims = tuple(int(axis) for axis in (value.shape if constant is None else constant.shape) or ())  # type: ignore[arg-type]
    kind = value.dtype if constant is None else constant.dtype
    if kind is None:
        raise GraphError(f"tensor '{value.name}' has no element type")
    return Shaped(_name(value), dims, 64 if kind is ir.DataType.STRING else int(kind.bitwidth), kind.is_floating_point())
