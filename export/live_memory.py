"""How much memory a graph's intermediate tensors need at once, by following it node by node.

A tensor lives from the node that makes it to the last one that reads it. What a runtime does better than that is given as rules,
which are stated where they stand: the figure is an estimate from above, and no kernel's private workspace is in it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from onnx import TensorProto

from .weightless import Graph, Value, size, symbols

_HALF, _SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT
_OTHER: dict[int, int] = {TensorProto.INT64: 8, TensorProto.DOUBLE: 8, TensorProto.INT32: 4, TensorProto.BOOL: 1, TensorProto.INT8: 1,
          TensorProto.UINT8: 1, TensorProto.BFLOAT16: 2, TensorProto.FLOAT8E4M3FN: 1}  # fmt: skip

_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten"})
_IN_PLACE = frozenset({"Add", "Mul", "Sub", "Div", "Sigmoid", "Relu", "Clip", "Gelu", "Sqrt", "Tanh", "Softmax"})


@dataclass(frozen=True)
class Rules:
    """What a runtime does with intermediate tensors."""

    half_bytes: int = 2
    """Bytes of what the graph holds in half precision: 4 where the runtime has no half-precision kernels."""
    single_bytes: int = 4
    """Bytes of what it holds in single precision: 2 where casts around norms and softmax are part of their kernels."""
    in_place: frozenset[str] = _IN_PLACE
    """Operators whose result may take the place of an input that nobody reads again."""


ONNX_RUNTIME = Rules()
FP32_KERNELS = Rules(half_bytes=4)
"""ONNX Runtime on the CPU, which computes half precision in single."""
TENSORRT = Rules(single_bytes=2, in_place=_IN_PLACE - {"Softmax"})
"""Point-wise work and casts are fused into their neighbours. Attention is counted as if it were not fused, though it usually is."""


def element_bytes(element: int, rules: Rules) -> int:
    if element == _HALF:
        return rules.half_bytes
    return rules.single_bytes if element == _SINGLE else _OTHER[element]


def peak_bytes(graph: Graph, sizes: Mapping[str, int], rules: Rules) -> int:
    """The largest sum of living tensors, inputs and outputs included, weights not."""
    known = symbols(graph, sizes)

    def bytes_of(value: Value) -> int:
        return math.prod(size(dim, known) for dim in value.dims) * element_bytes(value.element, rules)

    last = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
    last.update(dict.fromkeys(graph.outputs, len(graph.nodes)))
    place = {name: name for name in graph.inputs}
    taken = {name: bytes_of(graph.values[name]) for name in graph.inputs}
    users = Counter(graph.inputs)
    peak = sum(taken.values())
    for i, node in enumerate(graph.nodes):
        for name in node.outputs:
            needed = bytes_of(graph.values[name])
            shared = _shared(node.operator, node.inputs, i, last, place, taken, users, needed, rules)
            place[name] = shared or name
            users[place[name]] += 1
            if shared is None:
                taken[name] = needed
        peak = max(peak, sum(taken.values()))
        ended = [name for name in {*node.inputs, *node.outputs} if name in place and last.get(name, i) == i]
        for name in ended:
            users[place[name]] -= 1
            if users[place[name]] == 0:
                del taken[place[name]]
            del place[name]
    return peak


def _shared(
    operator: str,
    inputs: tuple[str, ...],
    now: int,
    last: Mapping[str, int],
    place: Mapping[str, str],
    taken: Mapping[str, int],
    users: Mapping[str, int],
    needed: int,
    rules: Rules,
) -> str | None:
    """The memory that a result takes over from an input, if it does."""
    if operator in _VIEWS and inputs[0] in place:
        return place[inputs[0]]
    if operator in rules.in_place:
        for name in inputs:
            if name in place and last[name] == now and users[place[name]] == 1 and taken[place[name]] >= needed:
                return place[name]
    return None


def weight_bytes(graph: Graph, half_bytes: int, matrix_bytes: int | None = None) -> int:
    """Bytes of the weights. `half_bytes`: of those stored in half precision; `matrix_bytes`: of matrices among them, where a
    quantisation stores these smaller."""
    total = 0
    for weight in graph.weights.values():
        count = math.prod(int(dim) for dim in weight.dims)
        if weight.element == _HALF:
            smaller = matrix_bytes is not None and len(weight.dims) >= 2
            total += count * (matrix_bytes if smaller and matrix_bytes is not None else half_bytes)
        else:
            total += count * (4 if weight.element == _SINGLE else _OTHER[weight.element])
    return total
