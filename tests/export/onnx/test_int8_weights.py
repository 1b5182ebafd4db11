"""INT8 weights: what is rounded and how far, what stays, and that the graph still computes the same."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.onnx.int8_weights import quantize, rounded

RNG = np.random.default_rng(0)
WEIGHTS = {
    "block.to_q.weight.transposed": RNG.standard_normal((96, 64)) * RNG.lognormal(0, 1, 64),
    "proj_out.weight": RNG.standard_normal((64, 96)),
    "conv.weight": RNG.standard_normal((96, 8, 3, 3)),
    "small.weight": RNG.standard_normal((96, 4)),
}


def model():
    """x [rows, 96] through a product, a kept product, a small one, and a convolution."""
    stored = [numpy_helper.from_array(value.astype(np.float16), name) for name, value in WEIGHTS.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "block.to_q.weight.transposed"], ["q"]),
        helper.make_node("MatMul", ["q", "proj_out.weight"], ["y"]),
        helper.make_node("MatMul", ["y", "small.weight"], ["z"]),
        helper.make_node("Conv", ["picture", "conv.weight"], ["c"]),
    ]
    half = TensorProto.FLOAT16
    inputs = [
        helper.make_tensor_value_info("x", half, ["rows", 96]),
        helper.make_tensor_value_info("picture", half, [1, 8, 6, 6]),
    ]
    shapes = {"y": ["rows", 96], "z": ["rows", 4], "c": [1, 96, 4, 4]}
    outputs = [helper.make_tensor_value_info(name, half, shape) for name, shape in shapes.items()]
    proto = helper.make_graph(nodes, "net", inputs, outputs, stored)
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("axis", [0, 1])
def test_each_channel_uses_the_whole_range_and_nothing_is_off_by_more_than_half_a_step(axis):
    weight = (RNG.standard_normal((48, 80)) * RNG.lognormal(0, 2, (48, 80)).max(axis=1 - axis, keepdims=True)).astype(
        np.float16
    )
    weight[(slice(None), 3) if axis else 3] = 0
    int8, scale = rounded(weight, axis)
    assert int8.dtype == np.int8 and scale.dtype == np.float16 and scale.shape == (weight.shape[axis],)
    wide = scale.astype(np.float32).reshape((1, -1) if axis else (-1, 1))
    assert np.abs(int8 * wide - weight.astype(np.float32)).max(axis=1 - axis) == pytest.approx(0, abs=float(wide.max()) / 2)
    assert (np.abs(int8 * wide - weight.astype(np.float32)) <= wide / 2 + 1e-7).all()
    largest = np.abs(int8.astype(int)).max(axis=1 - axis)
    assert largest.max() <= 127 and np.delete(largest, 3).min() >= 126 and largest[3] == 0


def test_large_fp16_weights_of_products_are_int8_and_those_named_stay(tmp_path):
    proto = model()
    graph = ir.serde.deserialize_model(proto)
    assert quantize(graph, keep=["proj_out"]) == {"weights": 2, "values": 96 * 64 + 96 * 8 * 9}
    assert not quantize(graph, keep=["proj_out"])["weights"]
    written = ir.serde.serialize_model(graph)
    onnx.checker.check_model(written)
    types = {tensor.name: tensor.data_type for tensor in written.graph.initializer}
    assert types["block.to_q.weight.transposed.int8"] == types["conv.weight.int8"] == TensorProto.INT8
    assert types["proj_out.weight"] == types["small.weight"] == TensorProto.FLOAT16
    assert "conv.weight" not in types
    inputs = {
        "x": RNG.standard_normal((5, 96)).astype(np.float16),
        "picture": RNG.standard_normal((1, 8, 6, 6)).astype(np.float16),
    }
    before, after = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, inputs)
        for m in (proto, written)
    )
    for one, other in zip(before, after, strict=True):
        assert 0 < np.abs(one.astype(float) - other).max() < 0.02 * np.abs(one).max()
