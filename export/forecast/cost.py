"""What one run of an exported graph costs at a concrete size: products, bytes, memory. Counted, not measured.

FLOPs are those of products (convolutions and matrix products, attention's among them), two per multiply-add, as networks are
commonly quoted; all else is memory traffic. Knows operators; nothing of machines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from .live_memory import ONNX_RUNTIME, VIEWS, peak_bytes
from .shapes import Graph, Node, Shaped


@dataclass(frozen=True)
class Cost:
    """One run of a graph."""

    flops: int
    """Of products; a multiply-add is two."""
    parameters: int
    """Elements of stored floating-point tensors."""
    weight_bytes: int
    boundary_bytes: int
    """Of inputs and outputs."""
    traffic_bytes: int
    """What all operators read and write, one by one: what moves when nothing is fused and nothing stays in a cache."""
    activation_peak_bytes: int
    """Most bytes of intermediate tensors alive at once, in the order of the file, each freed after its last reader."""

    @property
    def least_bytes(self) -> int:
        """What cannot but move in every run: weights, inputs, outputs."""
        return self.weight_bytes + self.boundary_bytes


def _matrix_product(_: Node, inputs: list[Shaped], output: Shaped) -> int:
    return 2 * output.elements * inputs[0].dims[-1]


def _gemm(node: Node, inputs: list[Shaped], output: Shaped) -> int:
    return 2 * output.elements * inputs[0].dims[0 if node.attributes.get("transA") else 1]


def _convolution(_: Node, inputs: list[Shaped], output: Shaped) -> int:
    """A weight is [out, in / groups, kernel...]: each output element sums over one of its first axis."""
    return 2 * output.elements * math.prod(inputs[1].dims[1:])


def _transposed_convolution(_: Node, inputs: list[Shaped], __: Shaped) -> int:
    """A weight is [in, out / groups, kernel...]: each input element is spread over one of its first axis."""
    return 2 * inputs[0].elements * math.prod(inputs[1].dims[1:])


def _attention(_: Node, inputs: list[Shaped], __: Shaped) -> int:
    """Query [batch, heads, rows, width] against key and value [batch, heads, columns, width]: both of its products."""
    query, key, value = inputs[:3]
    return 2 * math.prod(query.dims[:3]) * key.dims[-2] * (query.dims[-1] + value.dims[-1])


_PRODUCTS: Mapping[str, Callable[[Node, list[Shaped], Shaped], int]] = {
    "MatMul": _matrix_product,
    "Gemm": _gemm,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Attention": _attention,
}


def graph_cost(graph: Graph, float_bits: int | None = None) -> Cost:
    """The cost of a concrete graph; `float_bits`: as if numbers were that wide."""
    rules = replace(ONNX_RUNTIME, half_bits=float_bits, single_bits=float_bits) if float_bits else ONNX_RUNTIME
    moving = [node for node in graph.nodes if node.operator not in VIEWS]
    numbers = [graph.tensors[name] for name in graph.weights if graph.tensors[name].floating]
    return Cost(
        flops=sum(_flops(graph, node) for node in graph.nodes),
        parameters=sum(tensor.elements for tensor in numbers),
        weight_bytes=graph.bytes(graph.weights, float_bits),
        boundary_bytes=graph.bytes((*graph.inputs, *graph.outputs), float_bits),
        traffic_bytes=sum(
            graph.tensors[name].bytes(float_bits) for node in moving for name in (*node.inputs, *node.outputs) if name
        ),
        activation_peak_bytes=peak_bytes(graph, rules),
    )


def _flops(graph: Graph, node: Node) -> int:
    """FLOPs of one operator; 0 for what multiplies no matrices."""
    if node.operator not in _PRODUCTS:
        return 0
    inputs = [graph.tensors[name] for name in node.inputs if name]
    return _PRODUCTS[node.operator](node, inputs, graph.tensors[node.outputs[0]])
