"""Attention as one operator, ONNX Runtime's own `MultiHeadAttention`, in the place of two products and a softmax.

On CUDA it never writes the scores down. The written-out form is what every other runtime reads; this one is a file beside it that
shares its weights, and its parity is proven as that of the other is. Attention with a mask or a bias stays written out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from faceclip_serving.contract.placements import FUSED_FILE, ONNX_FILE, placements
from faceclip_serving.contract.variants.table import VARIANTS

DOMAIN = "com.microsoft"
"""Of ONNX Runtime's operators that are not ONNX's."""
PRECISIONS = frozenset(
    execution.precision
    for variant in VARIANTS.values()
    for placement in placements(variant).values()
    for execution in placement.components.values()
    if execution.runtime.artifact == FUSED_FILE
)
"""Those in which a placement runs this form."""
_HEADS_FIRST = [0, 2, 1, 3]
"""[batch, tokens, heads, width] <-> [batch, heads, tokens, width]."""


@dataclass(frozen=True)
class _Attention:
    query: ir.Value
    key: ir.Value
    value: ir.Value
    """Each [batch, heads, tokens, width], but a key that `keeps_tokens_first` [batch, tokens, heads, width]."""
    keeps_tokens_first: bool
    scale: float
    heads: int
    output: ir.Value
    """[batch, heads, tokens, width]"""


def write_fused(folder: Path) -> int:
    """Writes `model.fused.onnx` beside the `model.onnx` of `folder`, over the same weights. Returns how many attentions it fused."""
    model = ir.load(folder / ONNX_FILE)
    fused = fuse(model)
    ir.save(model, folder / FUSED_FILE)
    return fused


def fuse(model: ir.Model) -> int:
    """Replaces every attention without mask or bias, in place. Returns how many."""
    found = [attention for node in list(model.graph) if (attention := _attention(node)) is not None]
    for attention in found:
        _replace(attention)
    if found:
        model.graph.opset_imports[DOMAIN] = 1
        passes.RemoveUnusedNodesPass()(model)
        model.graph.sort()
    return len(found)


def _attention(softmax: ir.Node) -> _Attention | None:
    """The attention around a softmax, or None where it is something else."""
    axis = softmax.attributes.get("axis")
    if softmax.op_type != "Softmax" or (axis is not None and axis.as_int() not in (-1, 3)):
        return None
    scores, scale = _unscaled(_uncast(softmax.inputs[0]))
    product = _producer(scores, "MatMul")
    if product is None:
        return None
    query, of_query = _unscaled(product.inputs[0])
    key, of_key, tokens_first = _key(product.inputs[1])
    weighted = _only_user(softmax.outputs[0], "MatMul")
    if key is None or query is None or weighted is None or query.shape is None:
        return None
    heads, value = query.shape[1], _uncast(weighted.inputs[1])
    output = weighted.outputs[0]
    if (
        output.is_graph_output()
        or len(query.shape) != 4
        or not isinstance(heads, int)
        or value is None
        or _uncast(weighted.inputs[0]) is value
    ):
        return None
    if not query.dtype == key.dtype == value.dtype == output.dtype:
        return None
    if _dim(key, 2 if tokens_first else 1) != heads or _dim(value, 1) != heads:  # heads that are shared
        return None
    return _Attention(query, key, value, tokens_first, scale * of_query * of_key, heads, output)


def _key(transposed: ir.Value | None) -> tuple[ir.Value | None, float, bool]:
    """The key of a product's second factor, its scale, and whether its tokens come before its heads."""
    inner, scale = _unscaled(transposed)
    node = _producer(inner, "Transpose")
    order = _order(node)
    if node is None or order not in ([0, 1, 3, 2], [0, 2, 3, 1]):
        return None, 1.0, False
    key, more = _unscaled(node.inputs[0])
    return key, scale * more, order == [0, 2, 3, 1]


def _replace(attention: _Attention) -> None:
    query = _flat(attention.query)
    key = _flat(attention.key, attention.keeps_tokens_first)
    value = _flat(attention.value)
    node = ir.node(
        "MultiHeadAttention", [query, key, value], {"num_heads": attention.heads, "scale": attention.scale}, domain=DOMAIN
    )
    after = attention.output.producer()
    assert after is not None and after.graph is not None
    last = node
    transpose = _only_user(attention.output, "Transpose")
    flat = _only_user(transpose.outputs[0], "Reshape") if transpose is not None and _order(transpose) == _HEADS_FIRST else None
    if flat is not None and _stands_for(flat.outputs[0], attention):
        old = flat.outputs[0]
    else:
        old = attention.output
        parts = ir.node("Reshape", [node.outputs[0], _constant([0, 0, attention.heads, -1])])
        last = ir.node("Transpose", [parts.outputs[0]], {"perm": _HEADS_FIRST})
    result = last.outputs[0]
    result.shape, result.type = old.shape, old.type
    after.graph.insert_after(after, list(dict.fromkeys(_new(last))))
    old.replace_all_uses_with(result)


def _flat(value: ir.Value, tokens_first: bool = False) -> ir.Value:
    """The value as [batch, tokens, heads * width]: what it was made of, where it was that, or else made of it by new nodes."""
    if not tokens_first:
        transpose = _producer(value, "Transpose")
        if transpose is not None and _order(transpose) == _HEADS_FIRST and transpose.inputs[0] is not None:
            value = transpose.inputs[0]
        else:
            value = ir.node("Transpose", [value], {"perm": _HEADS_FIRST}).outputs[0]
    reshape = _producer(value, "Reshape")
    source = reshape.inputs[0] if reshape is not None else None
    if source is not None and _is_flat(source, [_dim(value, axis) for axis in range(4)]):
        return source
    return ir.node("Reshape", [value, _constant([0, 0, -1])]).outputs[0]


def _new(node: ir.Node | None) -> Iterator[ir.Node]:
    """A node and all that it reads of what is in no graph yet, each after those that it reads itself; some more than once."""
    if node is not None and node.graph is None:
        for each in node.inputs:
            yield from _new(each.producer() if each is not None else None)
        yield node


def _constant(numbers: list[int]) -> ir.Value:
    return ir.node("Constant", [], {"value": ir.tensor(np.array(numbers, np.int64))}).outputs[0]


def _stands_for(value: ir.Value, attention: _Attention) -> bool:
    """Whether a value may become the operator's own output: of its shape and type, and no output of the graph, whose name stays."""
    batch, heads, tokens, width = (_dim(attention.output, axis) for axis in range(4))
    same_type = value.dtype == attention.query.dtype
    return same_type and not value.is_graph_output() and _is_flat(value, [batch, tokens, heads, width])


def _is_flat(value: ir.Value, parts: Sequence[int | str | None]) -> bool:
    """Whether a value is [batch, tokens, heads * width] of the four `parts`, and not these in another way."""
    batch, tokens, heads, width = parts
    if value.shape is None or len(value.shape) != 3 or not (isinstance(heads, int) and isinstance(width, int)):
        return False
    return None not in (batch, tokens) and [_dim(value, axis) for axis in range(3)] == [batch, tokens, heads * width]


def _dim(value: ir.Value, axis: int) -> int | str | None:
    """The size of an axis, or its name; None where neither is known."""
    if value.shape is None or len(value.shape) <= axis:
        return None
    found = value.shape[axis]
    return found if isinstance(found, int) else found.value


def _unscaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    """What a value is a multiple of, and the number that it was multiplied by."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in ("Mul", "Div"):
        return value, 1.0
    number = node.inputs[1].const_value if node.inputs[1] is not None else None
    if number is None or number.size != 1:
        return value, 1.0
    factor = float(number.numpy().reshape(-1)[0])
    return node.inputs[0], factor if node.op_type == "Mul" else 1 / factor


def _uncast(value: ir.Value | None) -> ir.Value | None:
    node = _producer(value, "Cast")
    return node.inputs[0] if node is not None else value


def _producer(value: ir.Value | None, operator: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == operator else None


def _only_user(value: ir.Value, operator: str) -> ir.Node | None:
    """The one node that reads a value, through casts, where it is of this operator."""
    users = [use.node for use in value.uses()]
    if len(users) != 1 or value.is_graph_output():
        return None
    (user,) = users
    if user.op_type == "Cast":
        return _only_user(user.outputs[0], operator)
    return user if user.op_type == operator else None


def _order(node: ir.Node | None) -> list[int]:
    attribute = node.attributes.get("perm") if node is not None and node.op_type == "Transpose" else None
    return list(attribute.as_ints()) if attribute is not None else []
