"""INT8 and INT4 weights in an FP16 graph: a half or a quarter of the file and of the memory traffic, the same arithmetic.

A weight W of a product becomes W8 x scale or W4 x scale, symmetric. INT8 has one scale per output channel: the largest absolute value of
a channel is 127. INT4 has one per output channel and `BLOCK` values along the axis that is summed over, chosen for the least squared
error, and values to the nearest, unless the caller knows better. The graph says `DequantizeLinear(values, scale)` in front of the
product, which stays in FP16.

What is stored how follows what NVIDIA's compiler does with it, see docs/quantisation.md: matrix products read INT8 with scales per channel,
and INT4 with scales per block, as they are; INT8 with scales per block is unfolded to FP16 in memory first. So are the weights of
convolutions in either type, one at a time, and INT4 in blocks is refused there: they are INT8. Weights of FP32 products, small ones, and
those that are named stay as they are. Knows ONNX graphs; nothing of networks.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .graph import sizes

SMALLEST = 4096
"""Values; below that a weight is not worth its scales."""
BLOCK = 64
"""Values that share a scale in INT4. It divides the width of every layer of SDXL and FLUX; the usual 128 does not divide 320."""

_LARGEST = 127
_LOWEST_4, _HIGHEST_4 = -8, 7
_SHARES = (1.0, 0.94, 0.88, 0.82, 0.76, 0.7)
"""Of the scale at which nothing of a block is cut off: those that are tried."""

Pair = tuple[NDArray[Any], NDArray[np.float16]]
"""Values of fewer bits in a weight's shape, and their scales."""


def quantize(
    model: ir.Model,
    bits: int,
    keep: Iterable[str] = (),
    keep_eight: Iterable[str] = (),
    in_blocks: Callable[[str, NDArray[Any], int], Pair] | None = None,
) -> dict[str, dict[str, int]]:
    """Stores the FP16 weights of the graph's products as INT8 (`bits` 8), or those of matrix products as INT4 (4), in place.

    Returns `int8` and `int4` -> how many weights, and how many values they have. `keep`: starts of the names of weights that stay FP16;
    `*` stands for any text. A weight that another kind of operator reads, too, stays as well. `keep_eight`: of those that become INT8 in
    any case. `in_blocks`: name of a weight, the weight and the axis of its channels -> what `rounded_in_blocks` gives by default.
    """
    graph = model.graph
    counts = {f"int{width}": {"weights": 0, "values": 0} for width in sorted({8, bits}, reverse=True)}
    four = {weight.name for weight, _, _ in block_weights(graph, (*keep, *keep_eight))} if bits == 4 else set()
    for weight, tensor, axis in list(product_weights(graph, keep)):
        if tensor.size < SMALLEST:
            continue
        if weight.name in four:
            _replace_by_int4(graph, weight, tensor, axis, in_blocks)
        else:
            replace_by_int8(graph, weight, tensor, axis)
        count = counts["int4" if weight.name in four else "int8"]
        count["weights"] += 1
        count["values"] += tensor.size
    return counts


def block_weights(graph: ir.Graph, keep: Iterable[str] = ()) -> Iterator[tuple[ir.Value, ir.TensorProtocol, int]]:
    """Of `product_weights`, those that can be INT4: matrices, whose blocks are full."""
    for weight, tensor, axis in product_weights(graph, keep):
        shape = sizes(tensor)
        if tensor.size >= SMALLEST and len(shape) == 2 and shape[1 - axis] % BLOCK == 0:
            yield weight, tensor, axis


def product_weights(graph: ir.Graph, keep: Iterable[str] = ()) -> Iterator[tuple[ir.Value, ir.TensorProtocol, int]]:
    """FP16 weights that products alone read, with their values and the axis of their output channels; without those of `keep`."""
    patterns = [f"{start}*" for start in keep]
    for name, weight in graph.initializers.items():
        axes = {_channel_axis(use.node, use.idx) for use in weight.uses()}
        axis = axes.pop() if len(axes) == 1 else None
        tensor = weight.const_value
        if axis is None or tensor is None or tensor.dtype != ir.DataType.FLOAT16:
            continue
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            yield weight, tensor, axis


def rounded(weight: NDArray[Any], axis: int) -> Pair:
    """INT8 values of the weight's shape, and the FP16 scale of each channel on `axis`."""
    scaled, scale = scaled_by_channel(weight, axis, _LARGEST)
    return np.rint(scaled).astype(np.int8), scale


def scaled_by_channel(weight: NDArray[Any], axis: int, largest: float) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """The weight divided by the FP16 scale of each channel on `axis`, so that no value is beyond `largest`; and the scales."""
    wide = weight.astype(np.float32)
    others = tuple(i for i in range(wide.ndim) if i != axis)
    scale = _scale(np.abs(wide).max(axis=others) / largest)
    return wide / scale.astype(np.float32).reshape([-1 if i == axis else 1 for i in range(wide.ndim)]), scale


def rounded_in_blocks(weight: NDArray[Any], axis: int) -> Pair:
    """INT4 values of a matrix, and the FP16 scale of every `BLOCK` of them along the other axis than the channels' `axis`."""
    wide = np.moveaxis(weight.astype(np.float32), axis, 1)
    scale = block_scales(wide)
    return pair_of(wide / np.repeat(scale.astype(np.float32), BLOCK, axis=0), scale, axis)


def block_scales(wide: NDArray[np.float32], importance: NDArray[Any] | None = None) -> NDArray[np.float16]:
    """FP16 scales [rows / BLOCK, channels] of a matrix [rows, channels] that is summed over its rows.

    Of several scales for a block the one with the least squared error is taken: a small one cuts off the largest values and rounds the
    others less. `importance` [rows]: how much the error of a row counts; None: all the same.
    """
    blocks = wide.reshape(-1, BLOCK, wide.shape[1])
    weights = 1.0 if importance is None else importance.reshape(-1, BLOCK, 1)
    whole = np.abs(blocks).max(axis=1, keepdims=True) / _HIGHEST_4
    best, least = np.zeros_like(whole, np.float16), np.full(whole.shape, np.inf)
    for share in _SHARES:
        scale = _scale(whole * share)
        error = (weights * np.square(int4(blocks / scale.astype(np.float32)) * scale - blocks)).sum(axis=1, keepdims=True)
        best = np.where(error < least, scale, best)
        least = np.minimum(error, least)
    return np.asarray(best[:, 0], np.float16)


def pair_of(scaled: NDArray[Any], scale: NDArray[np.float16], axis: int) -> Pair:
    """A matrix [rows, channels] divided by its scales, as INT4, and these; with the channels on `axis`."""
    return np.moveaxis(int4(scaled).astype(ml_dtypes.int4), 1, axis), np.moveaxis(scale, 1, axis)


def int4(scaled: NDArray[Any]) -> NDArray[np.float32]:
    """The nearest whole numbers that INT4 has."""
    return np.asarray(np.clip(np.rint(scaled), _LOWEST_4, _HIGHEST_4), np.float32)


def _scale(needed: NDArray[np.float32]) -> NDArray[np.float16]:
    """In FP16, not below what is needed, so that nothing exceeds the range; never 0, for channels and blocks of zeros."""
    scale = needed.astype(np.float16)
    scale = np.where(scale < needed, np.nextafter(scale, np.float16(np.inf)), scale)
    return np.maximum(scale, np.finfo(np.float16).smallest_subnormal)


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


def replace_by_int8(graph: ir.Graph, weight: ir.Value, tensor: ir.TensorProtocol, axis: int) -> None:
    replace(graph, weight, lambda: rounded(tensor.numpy(), axis), ir.DataType.INT8, [sizes(tensor)[axis]], {"axis": axis})


def _replace_by_int4(
    graph: ir.Graph,
    weight: ir.Value,
    tensor: ir.TensorProtocol,
    axis: int,
    in_blocks: Callable[[str, NDArray[Any], int], Pair] | None,
) -> None:
    name = str(weight.name)
    scales = [size if i == axis else size // BLOCK for i, size in enumerate(sizes(tensor))]
    attributes = {"axis": 1 - axis, "block_size": BLOCK}

    def make() -> Pair:
        values = tensor.numpy()
        return rounded_in_blocks(values, axis) if in_blocks is None else in_blocks(name, values, axis)

    replace(graph, weight, make, ir.DataType.INT4, scales, attributes)


def replace(
    graph: ir.Graph,
    weight: ir.Value,
    make: Callable[[], Pair],
    dtype: ir.DataType,
    scales: list[int],
    attributes: dict[str, int],
) -> None:
    """Puts `DequantizeLinear` of a pair, which is made when it is written, in the place of a weight. `scales`: their shape."""
    name, shape, pair = str(weight.name), weight.shape, _Once(make)
    assert shape is not None
    integers = ir.LazyTensor(lambda: ir.Tensor(pair.take(0)), dtype, shape, name=f"{name}.{dtype.name.lower()}")
    scale = ir.LazyTensor(lambda: ir.Tensor(pair.take(1)), ir.DataType.FLOAT16, ir.Shape(scales), name=f"{name}.scale")
    stored = [
        ir.Value(name=t.name, type=ir.TensorType(t.dtype), shape=ir.Shape(sizes(t)), const_value=t) for t in (integers, scale)
    ]
    node = ir.node("DequantizeLinear", inputs=stored, attributes=attributes, name=f"{name}.wide")
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

    def __init__(self, make: Callable[[], Pair]) -> None:
        self._make = make
        self._left: dict[int, Any] = {}

    def take(self, half: int) -> Any:
        if half not in self._left:
            self._left = dict(enumerate(self._make()))
        return np.ascontiguousarray(self._left.pop(half))
