"""INT8 weights in an FP16 graph: half of the file and of the memory traffic, the same arithmetic.

A weight W of a product becomes W8 x scale, symmetric, with one scale per output channel: the largest absolute value of a channel is
127. The graph says `DequantizeLinear(W8, scale)` in front of the product, which stays in FP16; whether a runtime multiplies out of
INT8 or unfolds the weight first is its own affair. Weights of FP32 products, small ones, and those that are named stay as they are.
Knows ONNX graphs; nothing of networks.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .graph import sizes

SMALLEST = 4096
"""Values; below that a weight is not worth its scales."""

_LARGEST = 127


def quantize(model: ir.Model, keep: Iterable[str] = ()) -> dict[str, int]:
    """Stores the FP16 weights of the graph's products as INT8, in place. Returns how many weights, and how many values they have.

    `keep`: starts of the names of weights that stay FP16; `*` stands for any text. A weight that another kind of operator reads,
    too, stays as well.
    """
    graph = model.graph
    patterns = [f"{start}*" for start in keep]
    counts = {"weights": 0, "values": 0}
    for name, weight in list(graph.initializers.items()):
        axes = {_channel_axis(use.node, use.idx) for use in weight.uses()}
        axis = axes.pop() if len(axes) == 1 else None
        tensor = weight.const_value
        if axis is None or tensor is None or tensor.dtype != ir.DataType.FLOAT16 or tensor.size < SMALLEST:
            continue
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            continue
        _replace(graph, weight, tensor, axis)
        counts["weights"] += 1
        counts["values"] += tensor.size
    return counts


def rounded(weight: NDArray[Any], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """INT8 values of the weight's shape, and the FP16 scale of each channel on `axis`."""
    wide = weight.astype(np.float32)
    others = tuple(i for i in range(wide.ndim) if i != axis)
    needed = np.abs(wide).max(axis=others) / _LARGEST
    scale = needed.astype(np.float16)
    scale = np.where(scale < needed, np.nextafter(scale, np.float16(np.inf)), scale)  # so that nothing exceeds 127
    scale = np.maximum(scale, np.finfo(np.float16).smallest_subnormal)  # a channel of zeros
    by_channel = scale.astype(np.float32).reshape([-1 if i == axis else 1 for i in range(wide.ndim)])
    return np.rint(wide / by_channel).astype(np.int8), scale


def _channel_axis(node: ir.Node, position: int) -> int | None:
    """The axis of output channels of an operator's weight; None where input `position` is no weight of a product."""
    if position != 1:
        return None
    if node.op_type == "MatMul":
        return 1
    if node.op_type == "Gemm":
        turned = node.attributes.get("transB")
        return 0 if turned is not None and turned.as_int() else 1
    return 0 if node.op_type == "Conv" else None


def _replace(graph: ir.Graph, weight: ir.Value, tensor: ir.TensorProtocol, axis: int) -> None:
    name = str(weight.name)
    shape = ir.Shape(sizes(tensor))
    channels = ir.Shape([sizes(tensor)[axis]])
    pair = _Once(lambda: rounded(tensor.numpy(), axis))
    int8 = ir.LazyTensor(lambda: ir.Tensor(pair.take(0)), ir.DataType.INT8, shape, name=f"{name}.int8")
    scale = ir.LazyTensor(lambda: ir.Tensor(pair.take(1)), ir.DataType.FLOAT16, channels, name=f"{name}.scale")
    stored = [
        ir.Value(name=t.name, type=ir.TensorType(t.dtype), shape=ir.Shape(sizes(t)), const_value=t) for t in (int8, scale)
    ]
    node = ir.node("DequantizeLinear", inputs=stored, attributes={"axis": axis})
    wide = node.outputs[0]
    wide.name, wide.type, wide.shape = f"{name}.wide", ir.TensorType(ir.DataType.FLOAT16), shape
    first = min((use.node for use in weight.uses()), key=list(graph).index)
    graph.insert_before(first, node)
    weight.replace_all_uses_with(wide)
    graph.initializers.pop(name)
    for value in stored:
        graph.register_initializer(value)


class _Once:
    """A pair that is made for whichever half is asked for first, and forgotten when both have been taken."""

    def __init__(self, make: Callable[[], tuple[Any, Any]]) -> None:
        self._make = make
        self._left: dict[int, Any] = {}

    def take(self, half: int) -> Any:
        if half not in self._left:
            self._left = dict(enumerate(self._make()))
        return self._left.pop(half)
