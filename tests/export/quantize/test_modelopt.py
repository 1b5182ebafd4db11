"""Quantising, as far as it is ours: what calibrates, what is excluded, what is accepted. ModelOpt itself is asked where it is there."""

import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.checkpoint.digests import sha256
from export.forecast.shapes import find
from export.networks import components as networks
from export.networks.components import Quantization, network, unquantized
from export.onnx.export import export_component
from export.onnx.graph_precision import ONNX_PRODUCTS
from export.onnx.record import METADATA
from export.onnx.wanted import FACTOR_PRECISIONS, Export
from export.quantize import calibration, modelopt, quantize
from export.quantize.errors import QuantizationError
from export.quantize.sitting import Sitting
from faceclip_serving.contract.names import COMPONENTS, DENOISER
from faceclip_serving.contract.placements import ONNX_FILE
from faceclip_serving.contract.variants.flux import TINY_FLUX
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.contract.variants.table import VARIANTS

SITTING = Sitting(prompts=("a red coat",), steps=2, size=(64, 64))
RULES = Quantization(lambda _: (), {"int8": 25.0, "fp8": 30.0})


def product(name, left, right):
    return helper.make_node("MatMul", [left, right], [f"{name}_out"], name=name)


def model(nodes, weights=()):
    tensors = [numpy_helper.from_array(np.eye(2, dtype=np.float32), name) for name in weights]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("x", nodes[-1].output[0])]
    return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors))


def test_sensitive_layers_and_attentions_products_stay_as_they_are():
    weights = ("net.first.weight", "net.block.to_q.weight", "net.block.sensitive.weight")
    nodes = [
        product("entry", "x", weights[0]),
        product("query", "entry_out", weights[1]),
        product("scores", "query_out", "entry_out"),
        helper.make_node("Relu", ["scores_out"], ["relu_out"], name="relu"),
        product("late", "relu_out", weights[2]),
    ]
    starts = iter(("net.first", "*.sensitive"))
    assert modelopt.excluded_nodes(model(nodes, weights), starts) == ["entry", "scores", "late"]


FLUX_BLOCK = {
    "transformer_blocks": (19, 14),  # 8 of attention, 2 feed-forwards of 2, 2 modulations
    "single_transformer_blocks": (38, 6),  # 3 of attention, 2 of the feed-forward, 1 modulation
}
"""Kind of block -> how many the full size has, and how many layers that are products each has."""


def test_of_full_size_flux_every_product_of_a_block_is_quantised_and_nothing_else():
    """On the recorded graph. The memory of FLUX's placements counts on it: modulations alone are 3.2 of 11.9 G weights."""
    graph = find("flux", DENOISER, Path("/nowhere"))
    excluded = set(modelopt.excluded_nodes(graph, unquantized(VARIANTS["flux"], DENOISER)))
    weights = {tensor.name for tensor in graph.graph.initializer}
    products = [node for node in graph.graph.node if node.op_type in ONNX_PRODUCTS]
    kept = Counter(
        name.split(".")[1] for node in products if node.name not in excluded for name in node.input if name in weights
    )
    assert kept == {kind: blocks * layers for kind, (blocks, layers) in FLUX_BLOCK.items()}


def test_pictures_must_be_near_enough_for_the_mode():
    grey = np.full((1, 3, 8, 8), 0.5, np.float32)
    assert quantize.require_near([grey + 0.05], [grey], "int8", RULES) == pytest.approx([26.02], abs=0.01)
    with pytest.raises(QuantizationError, match=r"fp8: the pictures are 26\.0 dB .* expected at least 30; not accepted"):
        quantize.require_near([grey + 0.05], [grey], "fp8", RULES)
    with pytest.raises(QuantizationError, match="nan dB"):
        quantize.require_near([grey * np.nan], [grey], "int8", RULES)


def test_a_file_in_which_nothing_was_quantised_is_refused(tmp_path):
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    stored = numpy_helper.from_array(np.ones((2, 2), np.int8), "stored")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["x_again"]),
        helper.make_node("DequantizeLinear", ["stored", "scale"], ["weight"]),
        product("quantised", "x_again", "weight"),
        product("plain", "quantised_out", "x"),
    ]
    made = model(nodes)
    made.graph.initializer.extend([scale, stored])
    onnx.save(made, tmp_path / ONNX_FILE)
    assert modelopt.quantized_products(tmp_path / ONNX_FILE, 1) == {"both_factors": 1, "one_factor": 0, "as_they_were": 1}
    with pytest.raises(QuantizationError, match="at least 90% of the 2 products that are not excluded, found 1"):
        modelopt.quantized_products(tmp_path / ONNX_FILE, 0)
    onnx.save(model([product("plain", "x", "x")]), tmp_path / ONNX_FILE)
    with pytest.raises(QuantizationError, match="found 0"):
        modelopt.quantized_products(tmp_path / ONNX_FILE, 1)
    rounded = model([nodes[2], product("weight_only", "x", "weight")])
    rounded.graph.initializer.extend([scale, stored])
    onnx.save(rounded, tmp_path / ONNX_FILE)
    with pytest.raises(QuantizationError, match="in 1 only one factor is, so they would run in floating point"):
        modelopt.quantized_products(tmp_path / ONNX_FILE, 0)


@pytest.mark.parametrize(("element", "error"), [(TensorProto.FLOAT8E4M3FN, 0.05), (TensorProto.INT8, 0.02)])
def test_the_cpu_provider_runs_half_precision_products_of_8_bits(element, error):
    """The form that ModelOpt leaves: an activation rounded at run time, a weight stored in 8 bits, both scaled in FP16."""
    random = np.random.default_rng(0)
    given, weight = (random.uniform(-1, 1, size=shape).astype(np.float32) for shape in ((4, 64), (64, 32)))
    largest = 127 if element == TensorProto.INT8 else 448
    scale = np.float16(1 / largest)
    stored = helper.make_tensor("stored", element, weight.shape, weight / np.float32(scale))
    zero = helper.make_tensor("zero", element, [], [0])
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("QuantizeLinear", ["half", "scale", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "scale", "zero"], ["factor"]),
        helper.make_node("DequantizeLinear", ["stored", "scale", "zero"], ["weight"]),
        helper.make_node("MatMul", ["factor", "weight"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 64), ("y", 32))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(scale, "scale"), zero, stored])
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    (found,) = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": given})
    expected = given @ weight
    assert 0 < np.abs(found - expected).max() < error * np.abs(expected).max()


def test_calibration_keeps_rows_of_the_whole_run_and_bounds_their_number(monkeypatch):
    def draw(_variant, _sitting, opened):
        with opened(DENOISER) as run:
            for time in range(10):
                run({"timestep": np.full((2, 1), time, np.float32), "latents": np.full((2, 4), time, np.float32)})
        return ["picture"]

    def plain(*_):
        def opened(_component):
            return quantize.contextmanager(lambda: iter([lambda arrays: arrays]))()

        return opened

    monkeypatch.setattr(calibration, "draw_all", draw)
    monkeypatch.setattr(quantize, "opener", plain)
    rows, pictures = quantize.calibrate(TINY_SDXL, {}, SITTING, 5)
    assert rows["timestep"][:, 0].tolist() == rows["latents"][:, 0].tolist() == [0, 2, 5, 7, 9]
    assert pictures == ["picture"]
    assert len(quantize.calibrate(TINY_SDXL, {}, SITTING, 1000)[0]["latents"]) == 20


def test_without_modelopt_the_message_says_how_to_get_it():
    with pytest.raises(QuantizationError, match=r"has no NVIDIA ModelOpt .*pip install -r requirements-quantize\.txt"):
        modelopt.modelopt_version("/bin/false")
    with pytest.raises(QuantizationError, match="--python /no/python"):
        modelopt.modelopt_version("/no/python")


def test_what_it_starts_from_must_be_whole_and_have_rules(tmp_path, monkeypatch):
    folders = {name: tmp_path / "fp32" / name for name in COMPONENTS}
    with pytest.raises(QuantizationError, match=r"expected .*face_encoder/model\.onnx, whole; make it with"):
        quantize.quantize(TINY_SDXL, "int8", folders, tmp_path / "int8", SITTING, 8, sys.executable)
    ruleless = replace(network(TINY_SDXL, DENOISER), quantization=None)
    monkeypatch.setattr(networks, "network", lambda *_: ruleless)
    with pytest.raises(networks.ComponentError, match="component 'denoiser' of variant 'tiny-sdxl': no rules for 8 bits"):
        quantize.quantize(TINY_SDXL, "int8", folders, tmp_path / "int8", SITTING, 8, sys.executable)
    assert not list(tmp_path.iterdir())


PYTHON = os.environ.get("MODELOPT_PYTHON", "")


@pytest.fixture(scope="session")
def tiny_flux_fp16(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flux") / "fp16"
    for component in COMPONENTS:
        export_component(Export(TINY_FLUX, component, "fp16"), folder / component)
    return folder


@pytest.mark.skipif(not PYTHON, reason="MODELOPT_PYTHON names no interpreter with NVIDIA ModelOpt (requirements-quantize.txt)")
@pytest.mark.parametrize("mode", FACTOR_PRECISIONS)
@pytest.mark.parametrize(("variant", "files"), [(TINY_SDXL, "tiny_fp32"), (TINY_FLUX, "tiny_flux_fp16")])
def test_modelopt_quantises_the_tiny_denoisers_and_leaves_their_source_alone(request, tmp_path, variant, files, mode):
    folders = {name: request.getfixturevalue(files) / name for name in COMPONENTS}
    source = sha256(folders[DENOISER] / ONNX_FILE)
    sitting = replace(SITTING, steps=1)
    metadata = quantize.quantize(variant, mode, folders, tmp_path / mode, sitting, 4, PYTHON, ("a green hat",))
    assert sha256(folders[DENOISER] / ONNX_FILE) == source
    assert {part: len(values) for part, values in metadata["picture_psnr_db"].items()} == {"calibration": 1, "unseen": 1}
    found = metadata["operators"]
    assert found["one_factor"] == 0 and found["as_they_were"] == metadata["excluded"]["products"]
    assert {path.name for path in (tmp_path / mode).iterdir()} == {*metadata["files"], METADATA}
    assert len({path.stat().st_mode for path in (tmp_path / mode).glob(f"{ONNX_FILE}*")}) == 1
