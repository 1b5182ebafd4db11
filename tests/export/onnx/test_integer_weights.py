"""INT8 and INT4 weights: what is rounded and how far, what stays, and that the graph still computes the same."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.onnx.integer_weights import BLOCK, quantize, rounded, rounded_in_blocks

RNG = np.random.default_rng(0)
WEIGHTS = {
    "block.to_q.weight.transposed": RNG.standard_normal((128, 64)) * RNG.lognormal(0, 1, 64),
    "gemm.weight": RNG.standard_normal((80, 128)) * RNG.lognormal(0, 1, (80, 1)),
    "proj_out.weight": RNG.standard_normal((64, 96)),
    "odd.weight": RNG.standard_normal((96, 48)),
    "conv.weight": RNG.standard_normal((96, 64, 3, 3)),
    "small.weight": RNG.standard_normal((96, 4)),
}


def model():
    """x [rows, 128] through products, one of them kept, one small, one of a width that is no multiple of a block; a convolution."""
    stored = [numpy_helper.from_array(value.astype(np.float16), name) for name, value in WEIGHTS.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "block.to_q.weight.transposed"], ["q"]),
        helper.make_node("Gemm", ["x", "gemm.weight"], ["g"], transB=1),
        helper.make_node("MatMul", ["q", "proj_out.weight"], ["y"]),
        helper.make_node("MatMul", ["y", "odd.weight"], ["o"]),
        helper.make_node("MatMul", ["y", "small.weight"], ["z"]),
        helper.make_node("Conv", ["picture", "conv.weight"], ["c"]),
    ]
    half = TensorProto.FLOAT16
    inputs = [
        helper.make_tensor_value_info("x", half, ["rows", 128]),
        helper.make_tensor_value_info("picture", half, [1, 64, 6, 6]),
    ]
    shapes = {"g": ["rows", 80], "y": ["rows", 96], "o": ["rows", 48], "z": ["rows", 4], "c": [1, 96, 4, 4]}
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


@pytest.mark.parametrize("axis", [0, 1])
def test_a_blocks_scale_is_the_best_of_those_tried_and_never_worse_than_cutting_nothing_off(axis):
    weight = np.asarray(RNG.standard_t(4, (2 * BLOCK, 48)), np.float16)
    weight[:BLOCK, 3] = 0
    weight = weight.T if axis == 0 else weight
    int4, scale = rounded_in_blocks(weight, axis)
    assert int4.shape == weight.shape and int4.dtype == ml_dtypes.int4
    assert scale.dtype == np.float16 and scale.shape == ((48, 2) if axis == 0 else (2, 48))
    assert int4.astype(int).min() >= -8 and int4.astype(int).max() <= 7

    def error(integers, scales):
        found = integers.astype(np.float32) * np.repeat(scales.astype(np.float32), BLOCK, axis=1 - axis) - weight
        return np.add.reduceat(np.square(found), [0, BLOCK], axis=1 - axis)

    whole = np.maximum.reduceat(np.abs(weight.astype(np.float32)), [0, BLOCK], axis=1 - axis) / 7
    by_value = np.repeat(np.maximum(whole, 1e-9), BLOCK, axis=1 - axis)
    plain = error(np.rint(weight / by_value), whole)
    chosen = error(int4, scale)
    assert (chosen <= plain * 1.001 + 1e-6).all() and chosen.sum() < 0.9 * plain.sum()
    zeros = np.moveaxis(int4.astype(int), axis, 1)[:BLOCK, 3]
    assert not zeros.any() and np.isfinite(scale).all() and (scale > 0).all()


@pytest.mark.parametrize(("bits", "error"), [(8, 0.02), (4, 0.25)])
def test_large_fp16_weights_of_products_are_integers_and_those_named_stay(bits, error):
    proto = model()
    graph = ir.serde.deserialize_model(proto)
    matrices, others = 128 * 64 + 80 * 128, 96 * 48 + 96 * 64 * 9
    expected = {"int8": {"weights": 4, "values": matrices + others}}
    if bits == 4:
        expected = {"int8": {"weights": 2, "values": others}, "int4": {"weights": 2, "values": matrices}}
    assert quantize(graph, bits, keep=["proj_out"]) == expected
    assert not any(count["weights"] for count in quantize(graph, bits, keep=["proj_out"]).values())
    written = ir.serde.serialize_model(graph)
    onnx.checker.check_model(written)
    stored = {tensor.name: tensor for tensor in written.graph.initializer}
    name, element = ("int8", TensorProto.INT8) if bits == 8 else ("int4", TensorProto.INT4)
    for weight in ("block.to_q.weight.transposed", "gemm.weight"):
        tensor = stored[f"{weight}.{name}"]
        assert tensor.data_type == element and len(tensor.raw_data) == WEIGHTS[weight].size * bits // 8
    assert stored["conv.weight.int8"].data_type == stored["odd.weight.int8"].data_type == TensorProto.INT8
    assert stored["proj_out.weight"].data_type == stored["small.weight"].data_type == TensorProto.FLOAT16
    assert not {"conv.weight", "gemm.weight"} & stored.keys()
    inputs = {
        "x": RNG.standard_normal((5, 128)).astype(np.float16),
        "picture": RNG.standard_normal((1, 64, 6, 6)).astype(np.float16),
    }
    before, after = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, inputs)
        for m in (proto, written)
    )
    for one, other in zip(before, after, strict=True):
        assert 0 < np.abs(one.astype(float) - other).max() < error * np.abs(one).max()
