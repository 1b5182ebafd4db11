"""What one run of an exported graph costs at a concrete size: products, bytes, memory. Counted, not measured.

FLOPs are those of products (convolutions and matrix products, attention's among them), two per multiply-add, as networks are
commonly quoted; all else is memory traffic. Knows operators; nothing of machines.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .graph_shapes import Graph, Node, Shaped, concrete

VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten")
"""Operators whose output is their input's memory."""
IN_PLACE = ("Add", "Mul", "Div", "Sub", "Relu", "Sigmoid", "Clip", "Softmax", "Cast")
"""Operators that may write where they read, when nobody reads that any more and the sizes agree."""


@dataclass(frozen=True)
class Cost:
    """One run of a graph."""

    flops: int
    """Of products; a multiply-add is two."""
    flops_by_operator: Mapping[str, int]
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


def cost(path: Path, sizes: Mapping[str, int], float_bits: int | None = None) -> Cost:
    """The cost of the graph in `path` with its named axes at `sizes`; `float_bits`: as if numbers were that wide."""
    return graph_cost(concrete(path, sizes), float_bits)


def graph_cost(graph: Graph, float_bits: int | None = None) -> Cost:
    """The cost of a concrete graph."""
    by_operator: Counter[str] = Counter()
    traffic = 0
    for node in graph.nodes:
        by_operator[node.operator] += node_flops(graph, node)
        if node.operator not in VIEWS:
            traffic += sum(graph.tensors[name].bytes(float_bits) for name in (*node.inputs, *node.outputs) if name)
    numbers = [graph.tensors[name] for name in graph.weights if graph.tensors[name].floating]
    return Cost(
        flops=by_operator.total(),
        flops_by_operator={operator: flops for operator, flops in by_operator.most_common() if flops},
        parameters=sum(tensor.elements for tensor in numbers),
        weight_bytes=graph.bytes(graph.weights, float_bits),
        boundary_bytes=graph.bytes((*graph.inputs, *graph.outputs), float_bits),
        traffic_bytes=traffic,
        activation_peak_bytes=activation_peak(graph, float_bits),
    )


def node_flops(graph: Graph, node: Node) -> int:
    """FLOPs of one operator; 0 for what multiplies no matrices."""
    count = _PRODUCTS.get(node.operator)
    return 0 if count is None else count(node, [graph.tensors[name] for name in node.inputs if name], graph.tensors[node.outputs[0]])


def activation_peak(graph: Graph, float_bits: int | None = None) -> int:
    """Most bytes of tensors alive at once, inputs and outputs included, weights not."""
    owner: dict[str, str] = {}
    readers: Counter[str] = Counter(graph.outputs)  # outputs stay to the end

    def memory_of(name: str) -> str:
        return owner.get(name, name)

    for node in graph.nodes:
        if node.operator in VIEWS:
            owner[node.outputs[0]] = memory_of(node.inputs[0])
    for node in graph.nodes:
        readers.update({memory_of(name) for name in node.inputs if name})
    for name in graph.outputs:
        readers[memory_of(name)] += 1
    alive = {name: graph.tensors[name].bytes(float_bits) for name in graph.inputs}
    peak = now = sum(alive.values())
    for node in graph.nodes:
        reads = {memory_of(name) for name in node.inputs if name}
        if node.operator not in VIEWS:
            made = {name: graph.tensors[name].bytes(float_bits) for name in node.outputs if name}
            reused = _reused(node, reads, made, alive, readers)
            alive.update(made)
            now += sum(made.values())
            peak = max(peak, now - reused)
        readers.subtract(reads)
        for name in [name for name in {*reads, *node.outputs} if name in alive and readers[name] <= 0]:
            now -= alive.pop(name)
    return peak


def _reused(
    node: Node, reads: set[str], made: Mapping[str, int], alive: Mapping[str, int], readers: Mapping[str, int]
) -> int:
    """Bytes of the output that take the place of an input."""
    if node.operator not in IN_PLACE or len(made) != 1:
        return 0
    size = next(iter(made.values()))
    return size if any(alive.get(name) == size and readers[name] == 1 for name in reads) else 0


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
