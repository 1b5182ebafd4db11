"""Graphs against the published table of what TensorRT's parser takes."""

import onnx
import pytest
from onnx import TensorProto, helper

from export.engine.errors import EngineError
from export.engine.operators import check_operators, unsupported
from faceclip_serving.contract.placements import ONNX_FILE
from faceclip_serving.contract.signatures import COMPONENTS, DENOISER, FACE_ENCODER


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_exported_component_is_taken(tiny_fp32, component):
    check_operators(tiny_fp32 / component / ONNX_FILE)


@pytest.mark.parametrize("component", [FACE_ENCODER, DENOISER])
def test_in_half_precision_too(micro_fp16, component):
    check_operators(micro_fp16 / component / ONNX_FILE)


def graph(node, opset=21, initializers=()):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    tensors = [helper.make_tensor(name, TensorProto.INT64, [1], [1]) for name in initializers]
    body = helper.make_graph([node], "g", [x], [y], tensors)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)])


@pytest.mark.parametrize(
    ("node", "opset", "words"),
    [
        (helper.make_node("Bernoulli", ["x"], ["y"], name="dice"), 21, ["Bernoulli 'dice'"]),
        (helper.make_node("FusedMatMul", ["x", "x"], ["y"], domain="com.microsoft"), 21, ["com.microsoft.FusedMatMul 'y'"]),
        (helper.make_node("Relu", ["x"], ["y"]), 25, ["opset 25 (it reads 9 to 24)"]),
        (helper.make_node("ReduceL2", ["x", "axes"], ["y"]), 21, ["ReduceL2 'y': its axes 'axes' are computed"]),
        (helper.make_node("Resize", ["x", "", "s"], ["y"], mode="cubic"), 21, ["Resize 'y': mode 'cubic'"]),
        (helper.make_node("Resize", ["x", "", "s"], ["y"], mode="linear", antialias=1), 21, ["antialias '1'"]),
        (helper.make_node("ScatterND", ["x", "i", "u"], ["y"], reduction="add"), 21, ["ScatterND 'y': a reduction"]),
        (helper.make_node("LayerNormalization", ["x", "s"], ["y", "mean"]), 21, ["its statistics as outputs"]),
    ],
)
def test_what_it_refuses_is_named(node, opset, words):
    (problem,) = unsupported(graph(node, opset))
    for word in words:
        assert word in problem


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("ReduceL2", ["x", "axes"], ["y"]),
        helper.make_node("ReduceL2", ["x"], ["y"]),
        helper.make_node("Resize", ["x", "", "s"], ["y"], mode="linear", nearest_mode="simple"),
        helper.make_node("LayerNormalization", ["x", "s"], ["y"]),
    ],
)
def test_what_it_takes_is_not(node):
    assert list(unsupported(graph(node, initializers=["axes"]))) == []


def test_a_refused_file_is_one_error_with_the_first_nodes(tmp_path):
    model = graph(helper.make_node("Bernoulli", ["x"], ["y"]))
    model.graph.node.extend(helper.make_node("Bernoulli", ["x"], [f"y{i}"]) for i in range(6))
    onnx.save(model, tmp_path / ONNX_FILE)
    with pytest.raises(EngineError, match=r"does not take: Bernoulli 'y'; Bernoulli 'y0'; .*, and 2 more"):
        check_operators(tmp_path / ONNX_FILE)
