"""INT4 weights whose errors make up for each other: nearer than rounding to the nearest where it counts, in the same form."""

import os
import shutil

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.__main__ import main
from export.networks.components import network
from export.onnx.example_inputs import example_inputs
from export.onnx.integer_weights import BLOCK, block_weights, rounded_in_blocks
from export.onnx.parity import onnx_run
from export.quantize.compensated import quantize_weights, rounded, second_moments
from export.quantize.errors import QuantizationError
from faceclip_serving.contract.components import components
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.placements import ONNX_FILE
from tests.export.micro import MICRO


def inputs_and_weight(channels=3 * BLOCK, correlated=0.9):
    """What goes in [tokens, K], its channels alike and of very different size, and a weight [K, N]."""
    random = np.random.default_rng(0)
    common = random.standard_normal((2000, 8)) @ random.standard_normal((8, channels))
    x = (correlated * common + random.standard_normal((2000, channels))) * random.lognormal(0, 1, channels)
    return x, random.standard_normal((channels, 40)).astype(np.float16)


def wide(pair, axis):
    values, scale = (np.moveaxis(each.astype(np.float64), axis, 1) for each in pair)
    return np.moveaxis(values * np.repeat(scale, BLOCK, axis=0), 1, axis)


@pytest.mark.parametrize("axis", [0, 1])
def test_products_are_off_by_less_than_half_of_what_the_nearest_values_are_off(axis):
    x, weight = inputs_and_weight()
    moment = x.T @ x / len(x)
    turned = weight.T if axis == 0 else weight
    found, nearest = rounded(turned, axis, moment), rounded_in_blocks(turned, axis)
    assert [(each.shape, each.dtype) for each in found] == [(each.shape, each.dtype) for each in nearest]
    assert found[0].dtype == ml_dtypes.int4

    def error(pair):
        back = wide(pair, axis)
        return np.square(x @ (back.T if axis == 0 else back) - x @ weight.astype(np.float64)).mean()

    assert error(found) < 0.5 * error(nearest)


@pytest.mark.parametrize("moment", ["none", "dead channels", "one direction"])
def test_inputs_that_say_little_do_no_harm(moment):
    x, weight = inputs_and_weight()
    x[:, {"none": slice(None), "dead channels": slice(0, 70), "one direction": slice(0, 0)}[moment]] = 0
    if moment == "one direction":
        x = np.outer(x[:, 0], np.arange(1, x.shape[1] + 1))
    pair = rounded(weight, 1, x.T @ x / len(x))
    values = pair[0].astype(int)
    assert np.isfinite(pair[1]).all() and values.min() >= -8 and values.max() <= 7
    if moment == "none":  # then all errors count alike, and nothing can be made up for
        np.testing.assert_array_equal(values, rounded_in_blocks(weight, 1)[0].astype(int))


def two_products(folder, element):
    """x [rows, 5, 4] through two matrices; the file and the matrices."""
    random = np.random.default_rng(1)
    weights = {"a.weight": random.standard_normal((4, 6)), "b.weight": random.standard_normal((6, 3))}
    nodes = [helper.make_node("MatMul", ["x", "a.weight"], ["h"]), helper.make_node("MatMul", ["h", "b.weight"], ["y"])]
    ends = [helper.make_tensor_value_info(name, element, ["rows", 5, size]) for name, size in (("x", 4), ("y", 3))]
    dtype = helper.tensor_dtype_to_np_dtype(element)
    stored = [numpy_helper.from_array(value.astype(dtype), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), folder / ONNX_FILE)
    return folder / ONNX_FILE, weights


def test_second_moments_are_those_of_all_rows(tmp_path):
    file, weights = two_products(tmp_path, TensorProto.FLOAT16)
    x = np.random.default_rng(2).standard_normal((5, 5, 4)).astype(np.float16)
    found = second_moments(file, ["h", "x"], {"x": x})
    for name, value in (("x", x), ("h", x.astype(float) @ weights["a.weight"])):
        flat = value.astype(np.float64).reshape(-1, value.shape[-1])
        np.testing.assert_allclose(found[name], flat.T @ flat / len(x), rtol=2e-2, atol=2e-2)
    assert [path.name for path in tmp_path.iterdir()] == [ONNX_FILE]


def test_a_denoiser_keeps_its_form_and_answers_nearer_than_with_the_nearest_values(micro_fp16, tmp_path):
    row, signature = network(MICRO, DENOISER), components(MICRO)[DENOISER]
    source = shutil.copytree(micro_fp16 / DENOISER, tmp_path / "linked") / ONNX_FILE
    for path in list(source.parent.iterdir()):
        os.link(path, tmp_path / path.name)  # as an assembled repository does
    rows = example_inputs(MICRO, signature, {"rows": 4, "latent_height": 16, "latent_width": 16})
    keep_eight = row.keep_eight(MICRO)
    made = tmp_path / "made"
    made.mkdir()
    notes = quantize_weights(source, made, rows, row.keep_half, keep_eight)
    assert all(path.name.startswith(ONNX_FILE) for path in made.iterdir())
    four = [
        weight.name
        for weight, _, _ in block_weights(ir.load(micro_fp16 / DENOISER / ONNX_FILE).graph, (*row.keep_half, *keep_eight))
    ]
    stored = {
        tensor.name: tensor.data_type for tensor in onnx.load(made / ONNX_FILE, load_external_data=False).graph.initializer
    }
    assert notes["stored"]["int4"]["weights"] == len(four) > 0
    assert {stored[f"{name}.int4"] for name in four} == {TensorProto.INT4}
    run, before = onnx_run(made / ONNX_FILE, signature), onnx_run(source, signature)
    one, other = (each(rows)["noise_pred"] for each in (run, before))
    assert 0 < np.abs(one - other).max() < row.tolerance["int4w"] * np.abs(other).max()


def test_an_fp32_file_is_refused_with_the_cure(tmp_path):
    with pytest.raises(QuantizationError, match=r"expected FP16 weights of matrix products; start from the FP16 file"):
        quantize_weights(two_products(tmp_path, TensorProto.FLOAT)[0], tmp_path, {}, (), ())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_or_weights_that_are_no_numbers_are_named(value):
    weight, moment = np.ones((BLOCK, 3), np.float16), np.eye(BLOCK)
    with pytest.raises(QuantizationError, match="inputs of a product that are numbers"):
        rounded(weight, 1, moment * value)
    weight[0, 0] = value
    with pytest.raises(QuantizationError, match="weights of a product that are numbers"):
        rounded(weight, 1, moment)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rows", "0"], "rows, steps: expected at least 1"),
        (["--rows", "-3"], "rows, steps: expected at least 1"),
        (["--steps", "0"], "rows, steps: expected at least 1"),
        (["--prompt", "x", "--unseen", "x"], "unseen: expected prompts that calibrate nothing, got 'x'"),
        (["--precision", "fp32"], "precision: expected fp16 for int4w"),
    ],
)
def test_what_cannot_calibrate_is_refused_before_a_picture_is_drawn(options, words, tmp_path, capsys):
    assert main(["quantize", "--variant", "tiny-sdxl", "--mode", "int4w", "--components", str(tmp_path), *options]) == 1
    assert words in capsys.readouterr().err
