"""Both factors in 8 bits without calibration: which products, how their weights are rounded, and that the graph still runs."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.networks.components import network, unquantized
from export.onnx import graph
from export.onnx.eight_bit_factors import quantize_factors, rounded_to_fp8
from export.onnx.wanted import FACTOR_PRECISIONS
from export.quantize.modelopt import excluded_nodes, quantized_products
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.placements import ONNX_FILE
from tests.export.micro import MICRO

ELEMENTS = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}


@pytest.mark.parametrize("axis", [0, 1])
def test_fp8_weights_use_the_whole_range_and_are_off_by_a_sixteenth_at_most(axis):
    random = np.random.default_rng(0)
    weight = (random.standard_normal((48, 80)) * random.lognormal(0, 2, (48, 1) if axis == 0 else 80)).astype(np.float16)
    weight[(slice(None), 3) if axis else 3] = 0
    narrow, scale = rounded_to_fp8(weight, axis)
    assert narrow.dtype == ml_dtypes.float8_e4m3fn and narrow.shape == weight.shape
    assert scale.dtype == np.float16 and scale.shape == (weight.shape[axis],)
    values = narrow.astype(np.float32)
    assert np.isfinite(values).all()
    largest = np.abs(values).max(axis=1 - axis)
    assert largest.max() <= 448 and np.delete(largest, 3).min() >= 416 and largest[3] == 0
    wide = values * scale.astype(np.float32).reshape((1, -1) if axis else (-1, 1))
    step = 2**-9 * scale.astype(np.float32).max()  # what is smaller than the smallest normal number is off by a part of it
    assert (np.abs(wide - weight) <= np.abs(weight.astype(np.float32)) / 16 + step).all()


def shared_input():
    """x [rows, 64] through two products that share it and one that stays; then through a convolution."""
    random = np.random.default_rng(1)
    shapes = {"to_q.weight": (64, 32), "to_k.weight": (64, 32), "proj_out.weight": (64, 32), "conv.weight": (8, 4, 3, 3)}
    stored = [numpy_helper.from_array(random.standard_normal(shape).astype(np.float16), name) for name, shape in shapes.items()]
    nodes = [helper.make_node("MatMul", ["x", f"{name}.weight"], [name]) for name in ("to_q", "to_k", "proj_out")]
    nodes += [helper.make_node("Identity", ["picture"], ["same"]), helper.make_node("Conv", ["same", "conv.weight"], ["c"])]
    nodes.append(helper.make_node("Mul", ["to_q", "to_k"], ["scores"]))
    half = TensorProto.FLOAT16
    ends = {"x": ["rows", 64], "picture": [1, 4, 6, 6], "scores": ["rows", 32], "proj_out": ["rows", 32], "c": [1, 8, 4, 4]}
    values = [helper.make_tensor_value_info(name, half, shape) for name, shape in ends.items()]
    proto = helper.make_graph(nodes, "net", values[:2], values[2:], stored)
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize(("precision", "error"), [("int8", 0.1), ("fp8", 0.1)])
def test_what_products_share_is_rounded_once_and_what_stays_reads_it_as_it_was(precision, error):
    proto = shared_input()
    model = ir.serde.deserialize_model(proto)
    assert quantize_factors(model, precision, ["proj_out"]) == 3
    assert quantize_factors(ir.serde.deserialize_model(proto), precision) == 4
    written = ir.serde.serialize_model(model)
    onnx.checker.check_model(written)
    operators = [node.op_type for node in written.graph.node]
    assert (operators.count("QuantizeLinear"), operators.count("DequantizeLinear")) == (2, 5)
    stored = {tensor.name: tensor.data_type for tensor in written.graph.initializer}
    assert {stored[f"{name}.weight.{name_of(precision)}"] for name in ("to_q", "to_k", "conv")} == {ELEMENTS[precision]}
    assert stored["proj_out.weight"] == TensorProto.FLOAT16
    (kept,) = (node for node in written.graph.node if "proj_out.weight" in node.input)
    assert kept.input[0] == "x"
    random = np.random.default_rng(2)
    given = {
        "x": random.uniform(-4, 4, (3, 64)).astype(np.float16),
        "picture": random.uniform(-4, 4, (1, 4, 6, 6)).astype("f2"),
    }
    before, after = (
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, given)
        for each in (proto, written)
    )
    for one, other in zip(before, after, strict=True):
        assert np.abs(one.astype(float) - other).max() < error * np.abs(one).max()


def name_of(precision):
    return TensorProto.DataType.Name(ELEMENTS[precision]).lower()


@pytest.mark.parametrize("precision", FACTOR_PRECISIONS)
def test_of_a_denoiser_those_products_are_taken_that_modelopt_would_take(precision, micro_fp16, tmp_path):
    source = micro_fp16 / DENOISER / ONNX_FILE
    kept = unquantized(MICRO, DENOISER)
    assert set(network(MICRO, DENOISER).quantization.excluded(MICRO)) <= set(kept)
    model = ir.load(source)
    count = quantize_factors(model, precision, kept)
    graph.save(model, tmp_path)
    excluded = len(excluded_nodes(onnx.load(source, load_external_data=False), kept))
    found = quantized_products(tmp_path / ONNX_FILE, excluded)
    assert found["one_factor"] == 0 and found["as_they_were"] == excluded and found["both_factors"] >= count > 0
