"""Attention as one operator: what is replaced, that it computes the same, and that only placements on CUDA get it."""

import json

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from export.onnx import record
from export.onnx.fused_attention import PRECISIONS, fuse
from export.onnx.record import METADATA
from export.repository.from_nothing import build_repository
from faceclip_serving.contract.names import COMPONENTS, DENOISER, FACE_ENCODER
from faceclip_serving.contract.placements import FUSED_FILE, ONNX_FILE, ONNX_WEIGHTS_FILE, ORT_CUDA, placement_of
from faceclip_serving.contract.variants.flux import TINY_FLUX
from faceclip_serving.contract.variants.sdxl import TINY_SDXL

BATCH, TOKENS, HEADS, WIDTH = 2, 5, 3, 8


def operators(path):
    return [node.op_type for node in onnx.load(str(path), load_external_data=False).graph.node]


@pytest.mark.parametrize("component", [FACE_ENCODER, DENOISER])
def test_every_plain_attention_is_one_operator_over_the_same_weights(micro_fp16, component):
    written, fused = (operators(micro_fp16 / component / name) for name in (ONNX_FILE, FUSED_FILE))
    assert written.count("Softmax") == fused.count("MultiHeadAttention") > 0
    assert "Softmax" not in fused and "MultiHeadAttention" not in written
    proto = onnx.load(str(micro_fp16 / component / FUSED_FILE), load_external_data=False)
    places = {entry.value for tensor in proto.graph.initializer for entry in tensor.external_data if entry.key == "location"}
    assert places == {ONNX_WEIGHTS_FILE}


@pytest.mark.parametrize("component", [FACE_ENCODER, DENOISER])
def test_its_parity_is_proven_and_recorded(micro_fp16, component):
    parity = json.loads((micro_fp16 / component / METADATA).read_text())["parity"]
    found = [each["error"] for each in parity["findings"] if each["check"] == "attention as one operator"]
    assert found and max(found) <= parity["tolerance"]


def test_it_is_made_where_a_placement_runs_it():
    assert {"fp16"} == PRECISIONS


def attention(key_order, scaled="both", heads_first=False, mask=False, shared=False, ends=True, over_queries=False):
    """A graph of one attention as the exporter writes it, by its variations; inputs [batch, tokens, heads * width]."""
    rng = np.random.default_rng(0)
    inputs = [ir.val(name, ir.DataType.FLOAT, [BATCH, TOKENS, HEADS * WIDTH]) for name in "qkv"]
    nodes = []

    def add(operator, values, attributes=None, shape=None):
        node = ir.node(operator, values, attributes or {})
        nodes.append(node)
        node.outputs[0].dtype = ir.DataType.FLOAT
        if shape is not None:
            node.outputs[0].shape = ir.Shape(shape)
        return node.outputs[0]

    def number(array):
        value = ir.val(f"c{len(constants)}", const_value=ir.tensor(array, name=f"c{len(constants)}"))
        constants.append(value)
        return value

    constants = []
    split = number(np.array([0, 0, HEADS, WIDTH], np.int64))
    parts = [add("Reshape", [each, split], shape=[BATCH, TOKENS, HEADS, WIDTH]) for each in inputs]
    first = [BATCH, HEADS, TOKENS, WIDTH]
    q, v = (add("Transpose", [each], {"perm": [0, 2, 1, 3]}, first) for each in (parts[0], parts[2]))
    factor = number(np.array(0.6, np.float32))
    if heads_first:  # something that is done between the heads and the product, as rotations are
        q = add("Add", [q, number(rng.standard_normal((TOKENS, WIDTH)).astype(np.float32))], shape=first)
    if scaled in ("both", "query"):
        q = add("Mul", [q, factor], shape=first)
    if key_order == [0, 2, 3, 1]:
        k = add("Transpose", [parts[1]], {"perm": key_order}, [BATCH, HEADS, WIDTH, TOKENS])
    else:
        k = add("Transpose", [parts[1]], {"perm": [0, 2, 1, 3]}, first)
        if scaled == "both":
            k = add("Mul", [k, factor], shape=first)
        k = add("Transpose", [k], {"perm": [0, 1, 3, 2]}, [BATCH, HEADS, WIDTH, TOKENS])
    scores = add("MatMul", [q, k])
    if scaled == "scores":
        scores = add("Div", [scores, number(np.array(2.5, np.float32))])
    if mask:
        scores = add("Add", [scores, number(np.triu(np.full((TOKENS, TOKENS), -1e4, np.float32), 1))])
    chances = add("Softmax", [scores], {"axis": 2 if over_queries else -1})
    out = add("MatMul", [chances, v], shape=first)
    out = add("Transpose", [out], {"perm": [0, 2, 1, 3]}, [BATCH, TOKENS, HEADS, WIDTH])
    out = add("Reshape", [out, number(np.array([0, 0, HEADS * WIDTH], np.int64))], shape=[BATCH, TOKENS, HEADS * WIDTH])
    if not ends:
        out = add("Neg", [out], shape=[BATCH, TOKENS, HEADS * WIDTH])
    outputs = [out, *([chances] if shared else [])]
    for name, value in zip(("out", "chances"), outputs, strict=False):
        value.name = name
    graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=constants, opset_imports={"": 21}, name="attention")
    return ir.Model(graph, ir_version=10)


def run(model):
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    return session.run(
        ["out"], {name: rng.standard_normal((BATCH, TOKENS, HEADS * WIDTH)).astype(np.float32) for name in "qkv"}
    )[0]


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("heads_first", [False, True])
@pytest.mark.parametrize("scaled", ["both", "query", "scores", "nothing"])
@pytest.mark.parametrize("key_order", [[0, 1, 3, 2], [0, 2, 3, 1]])
def test_all_ways_of_writing_it_down_compute_the_same_fused(key_order, scaled, heads_first, ends):
    expected = run(attention(key_order, scaled, heads_first, ends=ends))
    model = attention(key_order, scaled, heads_first, ends=ends)
    assert fuse(model) == 1 and "Softmax" not in {node.op_type for node in model.graph}
    np.testing.assert_allclose(run(model), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("what", ["mask", "shared", "over_queries"])
def test_what_is_masked_or_read_by_somebody_else_stays_written_out(what):
    model = attention([0, 1, 3, 2], **{what: True})
    before = [node.op_type for node in model.graph]
    assert fuse(model) == 0 and [node.op_type for node in model.graph] == before


@pytest.mark.parametrize("variant", [TINY_SDXL, TINY_FLUX], ids=lambda variant: variant.name)
def test_only_cuda_runs_it(variant):
    for name in ("cpu", "gpu-ort", "gpu-triton-ort"):
        for execution in placement_of(variant, name).components.values():
            assert (execution.runtime.artifact == FUSED_FILE) == (execution.runtime is ORT_CUDA)
    assert all(each.runtime.artifact == ONNX_FILE for each in placement_of(variant, "gpu-ort").emulate().components.values())


def test_a_repository_on_cuda_holds_the_fused_graphs_and_their_weights(tmp_path):
    placement = placement_of(TINY_SDXL, "gpu-ort")
    repository = build_repository(TINY_SDXL, placement, destination=tmp_path / "repository")
    for component in COMPONENTS:
        files = {path.name for path in (repository / placement.folder(component)).iterdir()}
        assert {FUSED_FILE, ONNX_WEIGHTS_FILE} <= files, component


def test_versions_are_told_where_onnx_runtime_is_the_one_for_gpus(monkeypatch):
    def version(name):
        if name == "onnxruntime":
            raise record.PackageNotFoundError(name)
        return f"1 of {name}"

    monkeypatch.setattr(record, "version", version)
    assert record.versions()["onnxruntime"] == "1 of onnxruntime-gpu"


def test_what_was_flat_in_another_way_is_not_taken_for_the_source():
    """Two items of a batch that were one: the rank alone says nothing."""

    def split():
        model = attention([0, 1, 3, 2])
        for value in model.graph.inputs:
            value.shape = ir.Shape([1, BATCH * TOKENS, HEADS * WIDTH])
        for node in model.graph:
            if node.op_type == "Reshape" and node.inputs[0] in model.graph.inputs:
                shape = ir.tensor(np.array([BATCH, TOKENS, HEADS, WIDTH], np.int64), name="split")
                node.inputs[1].const_value = shape
        return model

    rng = np.random.default_rng(2)
    feeds = {name: rng.standard_normal((1, BATCH * TOKENS, HEADS * WIDTH)).astype(np.float32) for name in "qkv"}

    def answer(model):
        session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(["out"], feeds)[0]

    model = split()
    assert fuse(model) == 1
    np.testing.assert_allclose(answer(model), answer(split()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("component", [FACE_ENCODER, DENOISER])
def test_nothing_is_made_flat_anew_that_was_flat(micro_fp16, component):
    written, fused = (operators(micro_fp16 / component / name) for name in (ONNX_FILE, FUSED_FILE))
    assert fused.count("Reshape") < written.count("Reshape") and fused.count("Transpose") < written.count("Transpose")
