"""How much memory a graph's intermediate tensors need at once, by following it node by node.

A tensor lives from the node that makes it to the last one that reads it. What a runtime does better than that is given as rules,
which are stated where they stand: the figure is an estimate from above, and no kernel's private workspace is in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from .shapes import Graph, Node, Shaped

VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten"})
"""Operators whose output is their input's memory."""
_IN_PLACE = frozenset({"Add", "Mul", "Sub", "Div", "Sigmoid", "Relu", "Clip", "Gelu", "Sqrt", "Tanh"})
"""Operators that may write where they read, when nobody reads that any more."""


@dataclass(frozen=True)
class Rules:
    """What a runtime does with intermediate tensors."""

    half_bits: int = 16
    """Bits of a number that the graph holds in 16: 32 where the runtime has no half-precision kernels."""
    single_bits: int = 32
    """Bits of one that it holds in 32: 16 where casts around norms and softmax are part of their kernels."""
    arena: float = 1.0
    """Memory that the runtime holds for each byte that lives: its chunks are rounded up and leave gaps."""
    extension: int = 0
    """Most bytes by which its arena grows at once, doubling until then: so much, weights included, may be held and not be used."""

    def bytes(self, tensor: Shaped) -> int:
        wide = {16: self.half_bits, 32: self.single_bits}.get(tensor.bits)
        return tensor.bytes(wide)


ONNX_RUNTIME = Rules(arena=1.75)
"""Measured on the CPU, decoders of two sizes at four resolutions each: 1.72 to 1.77 times the living tensors; denoisers 1.6 to 1.8
where attention is most of it."""
ONNX_RUNTIME_CUDA = Rules(arena=2.5, extension=2**30)
"""Measured on an H100, SDXL's denoiser of both forms, up to 8 rows of 1024 x 1024: where more than an extension was needed, 1.5 to 2.4
times the living tensors and one extension, 1 GiB, ONNX Runtime's own bound."""


def peak_bytes(graph: Graph, rules: Rules) -> int:
    """What the runtime holds when most tensors live: inputs and outputs included, weights not."""
    last = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
    last.update(dict.fromkeys(graph.outputs, len(graph.nodes)))
    place = {name: name for name in graph.inputs}
    taken = {name: rules.bytes(graph.tensors[name]) for name in graph.inputs}
    users = Counter(graph.inputs)
    peak = now = sum(taken.values())
    for i, node in enumerate(graph.nodes):
        dying = {name for name in node.inputs if name in place and last[name] == i and users[place[name]] == 1}
        for name in node.outputs:
            needed = rules.bytes(graph.tensors[name])
            place[name] = _shared(node, dying, place, taken, needed, rules) or name
            users[place[name]] += 1
            if place[name] == name:
                taken[name] = needed
                now += needed
        peak = max(peak, now)
        for name in [name for name in {*node.inputs, *node.outputs} if name in place and last.get(name, i) == i]:
            users[place[name]] -= 1
            if users[place[name]] == 0:
                now -= taken.pop(place[name])
            del place[name]
    return round(peak * rules.arena)


def _shared(
    node: Node, dying: set[str], place: Mapping[str, str], taken: Mapping[str, int], needed: int, rules: Rules
) -> str | None:
    """The memory that a result takes over from an input, if it does. `dying`: inputs that nobody else reads or shares."""
    views = node.operator in VIEWS or (node.operator == "Cast" and rules.half_bits == rules.single_bits)
    if views and node.inputs[0] in place:
        return place[node.inputs[0]]
    if node.operator in _IN_PLACE:
        return next((place[name] for name in node.inputs if name in dying and taken[place[name]] >= needed), None)
    return None


def weight_bytes(graph: Graph, matrix_bits: int | None = None, rules: Rules = ONNX_RUNTIME) -> int:
    """Bytes of the weights. `matrix_bits`: of matrices and kernels in half precision, where a quantisation stores these smaller."""
    total = 0
    for name in graph.weights:
        weight = graph.tensors[name]
        smaller = matrix_bits is not None and weight.floating and weight.bits == 16 and len(weight.dims) >= 2
        total += weight.bytes(matrix_bits) if smaller else weight.bytes(rules.half_bits if weight.bits == 16 else None)
    return total
