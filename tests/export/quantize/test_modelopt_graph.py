"""What a graph gets for ModelOpt: types where onnx infers none, names that are not the start of others; and all of it out again."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.quantize.modelopt_graph import ModelOptGraphError, annotate, restore

SHAPE = [1, 4, 2, 2]


def graph(declared=True):
    nodes = [
        helper.make_node("GroupNormalization", ["x", "scale", "bias"], ["normal"], name="norm", num_groups=2, epsilon=1e-5),
        helper.make_node("Conv", ["normal", "weight"], ["early"], name="linear"),
        helper.make_node("Sigmoid", ["normal"], ["gate"], name="linear_1"),
        helper.make_node("Mul", ["early", "gate"], ["y"], name="linear_12"),
    ]
    random = np.random.default_rng(0)
    weights = {"scale": random.normal(size=4), "bias": random.normal(size=4), "weight": random.normal(size=(4, 4, 1, 1))}
    tensors = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in ("x", "y")]
    known = [helper.make_tensor_value_info("normal", TensorProto.FLOAT, SHAPE)] if declared else []
    body = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors, value_info=known)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def inferred(model):
    """Names of the tensors that have a type when only inference gives types."""
    copied = onnx.ModelProto.FromString(model.SerializeToString())
    del copied.graph.value_info[:]
    return {value.name for value in onnx.shape_inference.infer_shapes(copied).graph.value_info}


def outputs(model):
    values = np.linspace(-2, 2, 16, dtype=np.float32).reshape(SHAPE)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": values})[0]


def test_what_follows_a_normalisation_has_a_type_without_being_declared():
    model = graph()
    assert annotate(model) == 1
    assert {"early", "gate"} <= inferred(model)
    np.testing.assert_array_equal(outputs(model), outputs(graph()))


def test_no_name_is_the_start_of_another():
    model = graph()
    annotate(model)
    names = [node.name for node in model.graph.node]
    assert all([other for other in names if re.match(name, other)] == [name] for name in names)


def test_restoring_leaves_the_graph_as_it_was():
    model = graph()
    annotate(model)
    model.graph.value_info.append(helper.make_tensor_value_info("normal.typed", TensorProto.FLOAT, SHAPE))
    assert restore(model) == 1
    assert model == graph()


def test_a_normalisation_of_unknown_type_is_named():
    with pytest.raises(ModelOptGraphError, match=r"'normal' \(GroupNormalization\): expected its type in value_info"):
        annotate(graph(declared=False))


def test_a_layer_that_stays_reads_what_others_read_rounded_as_it_is():
    """As the last modulation of FLUX, which reads the same embedding as those of the blocks."""
    pair = [
        helper.make_node("QuantizeLinear", ["x", "scale"], ["q"], name="q;"),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["rounded"], name="dq;"),
    ]
    products = [
        helper.make_node("MatMul", ["rounded", f"{name}.weight"], [name], name=f"{name};") for name in ("inner", "last")
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("x", "last")]
    model = helper.make_model(helper.make_graph([*pair, *products], "g", ends[:1], ends[1:]))
    restore(model, ["last"])
    assert {node.name: node.input[0] for node in model.graph.node[2:]} == {"inner": "rounded", "last": "x"}
