"""Both factors of an FP16 graph's products in 8 bits, in the form that `export quantize` makes: for whoever weighs a graph.

`QuantizeLinear` and `DequantizeLinear` stand before what goes into a product, and `DequantizeLinear` before its weight, which is stored in
8 bits with a scale per output channel. Nothing is calibrated: what goes in has one scale everywhere. What a plan needs on a card does not
depend on scales; pictures do, so such a graph draws none. Weights are rounded one at a time, when they are written, so a network that
nobody here could calibrate is weighed in little memory. Knows ONNX graphs; nothing of networks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .graph import sizes
from .integer_weights import Pair, product_weights, replace, replace_by_int8, scaled_by_channel

_TYPES = {"int8": ir.DataType.INT8, "fp8": ir.DataType.FLOAT8E4M3FN}
_LARGEST_FP8 = 448
_SCALE = np.array(1 / 16, np.float16)
"""Of all that goes into products: any finite value does."""


def quantize_factors(model: ir.Model, precision: str, keep: Iterable[str] = ()) -> int:
    """Puts both factors of the graph's products with FP16 weights into `int8` or `fp8`, in place; returns how many weights it were.

    `keep`: starts of the names of weights whose products stay as they are; `*` stands for any text.
    """
    graph, dtype = model.graph, _TYPES[precision]
    scale, zero = (_constant(graph, f"factor.{name}", value) for name, value in (("scale", _SCALE), ("zero", _zero(dtype))))
    factors: dict[ir.Value, ir.Value] = {}
    found = list(product_weights(graph, keep))
    for weight, tensor, axis in found:
        for use in weight.uses():
            given = use.node.inputs[0]
            assert given is not None
            if given not in factors:
                factors[given] = _rounded(graph, given, scale, zero)
            use.node.replace_input_with(0, factors[given])
        if dtype is ir.DataType.INT8:
            replace_by_int8(graph, weight, tensor, axis)
        else:
            _replace_by_fp8(graph, weight, tensor, axis)
    return len(found)


def rounded_to_fp8(weight: NDArray[Any], axis: int) -> Pair:
    """FP8 values (E4M3) of the weight's shape, and the FP16 scale of each channel on `axis`."""
    scaled, scale = scaled_by_channel(weight, axis, _LARGEST_FP8)
    return scaled.astype(ml_dtypes.float8_e4m3fn), scale


def _replace_by_fp8(graph: ir.Graph, weight: ir.Value, tensor: ir.TensorProtocol, axis: int) -> None:
    dtype = ir.DataType.FLOAT8E4M3FN
    replace(graph, weight, lambda: rounded_to_fp8(tensor.numpy(), axis), dtype, [sizes(tensor)[axis]], {"axis": axis})


def _rounded(graph: ir.Graph, given: ir.Value, scale: ir.Value, zero: ir.Value) -> ir.Value:
    """What goes into a product, through 8 bits and back."""
    narrow = ir.node("QuantizeLinear", inputs=[given, scale, zero])
    wide = ir.node("DequantizeLinear", inputs=[narrow.outputs[0], scale, zero])
    for node, name, element in ((narrow, "narrow", zero.dtype), (wide, "again", ir.DataType.FLOAT16)):
        assert element is not None
        value = node.outputs[0]
        value.name, value.type, value.shape = f"{given.name}.{name}", ir.TensorType(element), given.shape
    producer = given.producer()
    if producer is None:
        graph.insert_before(graph[0], [narrow, wide])
    else:
        graph.insert_after(producer, [narrow, wide])
    return wide.outputs[0]


def _zero(dtype: ir.DataType) -> NDArray[Any]:
    return np.zeros((), dtype.numpy())


def _constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(()), const_value=tensor)
    graph.register_initializer(value)
    return value
