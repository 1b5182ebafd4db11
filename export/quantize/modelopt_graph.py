"""What ModelOpt 0.47 needs of a graph so that it quantises all of it, put in before (`annotate`) and taken out after (`restore`).

- **Types.** It forgets a graph's declared types and infers them again with onnx, whose inference gives some operators' outputs none;
  everything behind the first of them keeps its weights quantised and its activations not. So a `Cast` to the type that the tensor
  already has follows each such operator: it changes nothing, and says the type.
- **Shared tensors.** For INT8 it rounds a tensor for all who read it, excluded layers among them, if one of them is quantised. These
  get the tensor itself again.
- **Names.** It uses names of nodes, its own findings' too, as regular expressions that match the start of a name: to leave `linear` out
  is to leave `linear_7` out. So each name gets an end that no other name goes on after.

Knows ONNX graphs only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx
from onnx import helper

from faceclip_serving.contract.errors import UserError

UNTYPED = frozenset({"GroupNormalization"})
"""Operators whose output onnx 1.21 gives no type, in opset 21."""

NAME_END = ";"
_TYPED = ".typed"


class ModelOptGraphError(UserError):
    """A graph does not say the type of a tensor."""


def annotate(model: onnx.ModelProto) -> int:
    """Adds types and ends of names, in place; the number of Casts added."""
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    outputs = {value.name for value in graph.output}
    nodes: list[onnx.NodeProto] = []
    casts: dict[str, str] = {}
    for node in graph.node:
        node.name += NAME_END
        _rename_inputs(node, casts)
        nodes.append(node)
        name = node.output[0]
        if node.op_type in UNTYPED and name not in outputs:
            if not types.get(name):
                raise ModelOptGraphError(
                    f"tensor '{name}' ({node.op_type}): expected its type in value_info; export the graph again"
                )
            casts[name] = name + _TYPED
            nodes.append(helper.make_node("Cast", [name], [casts[name]], name=casts[name] + NAME_END, to=types[name]))
    _replace(graph, nodes)
    return len(casts)


def restore(model: onnx.ModelProto, excluded: Iterable[str] = ()) -> int:
    """Takes out, in place, what `annotate` added; the number of Casts that were there.

    `excluded`: names, without the ends, of nodes that read what others read quantised as it is.
    """
    graph = model.graph
    casts = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Cast" and node.output[0] == node.input[0] + _TYPED
    }
    nodes = [node for node in graph.node if node.output[0] not in casts]
    plain, apart = _before_rounding(nodes), frozenset(excluded)
    for node in nodes:
        node.name = node.name.removesuffix(NAME_END)
        _rename_inputs(node, plain if node.name in apart else {})
        _rename_inputs(node, casts)
    _replace(graph, nodes)
    values = [value for value in graph.value_info if value.name not in casts]
    del graph.value_info[:]
    graph.value_info.extend(values)
    return len(casts)


def _before_rounding(nodes: Sequence[onnx.NodeProto]) -> dict[str, str]:
    """Tensor that was quantised and dequantised -> what it was before."""
    quantized = {node.output[0]: node.input[0] for node in nodes if node.op_type == "QuantizeLinear"}
    return {
        node.output[0]: quantized[node.input[0]]
        for node in nodes
        if node.op_type == "DequantizeLinear" and node.input[0] in quantized
    }


def _rename_inputs(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    for place, name in enumerate(node.input):
        node.input[place] = names.get(name, name)


def _replace(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
