"""Precision per layer, from documents as TensorRT's engine inspector writes them."""

import json
import math

import pytest

from export.__main__ import main
from export.engine.errors import EngineError
from export.engine.inspect import Layer, check_layers, describe, layers, summary
from export.engine.record import Machine, Measured, Recipe, Record
from export.forecast.shapes import find
from export.networks.components import network, unquantized
from export.onnx.graph_precision import ONNX_PRODUCTS
from export.onnx.wanted import CALIBRATED, FACTOR_PRECISIONS, PRECISIONS
from export.quantize.modelopt import SMALLEST_SHARE, excluded_nodes
from faceclip_serving.contract.components import bounds
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.placements import placements
from faceclip_serving.contract.variants.sdxl import SDXL
from faceclip_serving.contract.variants.table import VARIANTS

NOT_TOLD = "N/A due to dynamic shapes"


def tensor(datatype, name="t"):
    return {"Name": name, "Location": "Device", "Dimensions": [2, 4, 144, 108], "Format/Datatype": datatype}


def layer(kind, name, inputs, outputs=(), **more):
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [tensor(i) for i in inputs],
        "Outputs": [tensor(o) for o in outputs],
        **more,
    }


HALF_DOCUMENT = {
    "Layers": [
        layer(
            "Reformat",
            "Reformatting CopyNode for Input Tensor 0 to conv_in",
            ["Row major linear FP32"],
            ["Row major linear FP16 format"],
        ),
        layer(
            "CaskConvolution",
            "/conv_in/Conv + /conv_in/Add",
            ["Channel major FP16 format where channel % 8 == 0"],
            ["Channel major FP16 format where channel % 8 == 0"],
            ParameterType="Convolution",
            Weights={"Type": "Half", "Count": 11520},
            Bias={"Type": "Half", "Count": 320},
            TacticName="sm90_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc_tilesize128x128x64",
        ),
        layer(
            "gemm", "/attn1/to_q/MatMul_myl0_3", ["Half", "Half"], ["Half"], TacticName="sm90_xmma_gemm_f16f16_f16f32_f32_tn_n"
        ),
        layer("gemm", "/attn2/to_k/MatMul", [NOT_TOLD], [NOT_TOLD], Weights={"Type": "Half", "Count": 1310720}),
        layer("kgen", "__myl_MeanSubMulMean_myl0_7", ["Float", "Half"], ["Half"], TacticName="__myl_MeanSubMulMean_0x1"),
        layer("kgen", "_gemm_mha_v2_myl0_9", ["Half", "Half", "Half"], ["Half"]),
        layer("gemm", "/ffn/MatMul", [NOT_TOLD], [NOT_TOLD], TacticName="sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n"),
        layer("Shuffle", "/Reshape", ["Int64"], ["Int64"]),
    ],
    "Bindings": ["latents", "timestep", "noise_pred"],
}


def floats(count):
    tactic = "sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n"
    return [layer("gemm", f"/blocks.{i}/MatMul", ["Float", "Float"], ["Float"], TacticName=tactic) for i in range(count)]


def test_the_precision_of_each_layer_and_which_are_products():
    found = layers(HALF_DOCUMENT)
    assert [(each.product, each.precision) for each in found] == [
        (False, "FP32"),
        (True, "FP16"),
        (True, "FP16"),
        (True, "FP16"),  # by its weights, where the formats are not told
        (False, "FP16"),
        (True, "FP16"),
        (True, "BF16"),  # by its kernel's name, in which `f16` stands too
        (False, "INT64"),
    ]
    assert summary(found) == {"products": {"BF16": 1, "FP16": 4}, "others": {"FP16": 1, "FP32": 1, "INT64": 1}}
    check_layers(found, "fp16")


def test_an_engine_that_is_silently_fp32_is_noticed_and_its_layers_named():
    with pytest.raises(EngineError, match=r"30 of 35 products run in FP32, e.g. /blocks.0/MatMul, .*expected fp16"):
        check_layers(layers({"Layers": HALF_DOCUMENT["Layers"] + floats(30)}), "fp16")


def test_a_tenth_may_stay_fp32():
    half = [Layer(f"h{i}", "gemm", "FP16", True) for i in range(18)]
    check_layers([*half, *(Layer(f"f{i}", "gemm", "FP32", True) for i in range(2))], "fp16")
    with pytest.raises(EngineError):
        check_layers([*half, *(Layer(f"f{i}", "gemm", "FP32", True) for i in range(3))], "fp16")


@pytest.mark.parametrize(
    ("variant", "placement", "component"),
    [
        (variant, each, name)
        for variant in VARIANTS.values()
        for each in placements(variant).values()
        for name in each.components
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_precision_that_is_served_can_be_verified_and_an_engine_in_a_wider_type_is_refused(variant, placement, component):
    precision = placement.components[component].precision
    assert 0 < network(variant, component).tolerance[precision] < 1
    bits = {"FP8": 8, "INT8": 8, "FP16": 16, "FP32": 32}
    own = {"fp8": "FP8", "int8": "INT8", "int8w": "FP16", "fp16": "FP16", "fp32": "FP32"}[precision]
    check_layers([Layer(f"p{i}", "gemm", own, True) for i in range(20)], precision)
    for wider in (name for name in bits if bits[name] > bits[own]):
        with pytest.raises(EngineError, match=rf"20 of 20 products run in {wider}, e.g. p0, p1, p2; expected {precision}"):
            check_layers([Layer(f"p{i}", "gemm", wider, True) for i in range(20)], precision)


@pytest.mark.parametrize("precision", [*PRECISIONS, *CALIBRATED])
def test_every_precision_that_can_be_made_has_a_rule(precision):
    with pytest.raises(EngineError, match=r"20 of 20 products run in FP32|expected all products in FP32"):
        check_layers([Layer(f"p{i}", "gemm", "FP16" if precision == "fp32" else "FP32", True) for i in range(20)], precision)


def test_a_precision_without_a_rule_is_refused():
    with pytest.raises(EngineError, match=r"precision: expected one of fp32, fp16, .*, got 'fp12'"):
        check_layers([Layer("p", "gemm", "FP16", True)], "fp12")


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
@pytest.mark.parametrize("mode", FACTOR_PRECISIONS)
def test_a_denoiser_quantised_as_export_quantize_accepts_it_passes(variant, mode, tmp_path):
    """By its graph: excluded layers and attention stay, and a tenth of the others may."""
    graph = find(variant.name, DENOISER, tmp_path)
    total = sum(node.op_type in ONNX_PRODUCTS for node in graph.graph.node)
    excluded = len(excluded_nodes(graph, unquantized(variant, DENOISER)))
    both = math.ceil(SMALLEST_SHARE * (total - excluded))
    layer = [Layer("8", "gemm", mode.upper(), True)] * both + [Layer("16", "gemm", "FP16", True)] * (total - both)
    check_layers(layer, mode)


def test_fp32_means_all_products():
    check_layers(layers({"Layers": floats(3)}), "fp32")
    with pytest.raises(EngineError, match=r"expected all products in FP32, got .*'FP16': 4"):
        check_layers(layers(HALF_DOCUMENT), "fp32")


@pytest.mark.parametrize(
    ("inputs", "more", "precision"),
    [
        (["FP8E4M3", "Float"], {}, "FP8"),
        (["Thirty-two wide channel vectorized row major Int8 format."], {}, "INT8"),
        (["BFloat16", "Float"], {}, "BF16"),
        ([NOT_TOLD], {"TacticName": "sm90_xmma_gemm_e4m3bf16_e4m3f32_f32"}, "FP8"),
        ([NOT_TOLD], {"TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32"}, "INT8"),
        ([NOT_TOLD], {}, "unknown"),
        ([], {}, "unknown"),
    ],
)
def test_other_precisions_and_what_cannot_be_told(inputs, more, precision):
    (found,) = layers({"Layers": [layer("gemm", "product", inputs, **more)]})
    assert (found.precision, found.product) == (precision, True)


def test_what_cannot_be_told_is_not_taken_for_half():
    with pytest.raises(EngineError, match="of 1 products no precision can be told"):
        check_layers(layers({"Layers": [layer("gemm", "product", [NOT_TOLD])]}), "fp16")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "has no 'Layers'"),
        ({"Layers": []}, "has no 'Layers'"),
        ({"Layers": ["/conv_in/Conv", "/conv_out/Conv"]}, "layer names only"),
    ],
)
def test_a_document_without_details_is_refused(document, words):
    with pytest.raises(EngineError, match=words):
        layers(document)


def test_a_saved_document_is_summed_up_on_the_command_line(tmp_path, capsys):
    path = tmp_path / "layers.json"
    path.write_text(json.dumps(HALF_DOCUMENT))
    assert main(["inspect", "--json", str(path), "--layers"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["layers"]["products"] == {"BF16": 1, "FP16": 4}
    assert "/attn1/to_q/MatMul_myl0_3" in err


def test_a_description_says_what_the_server_may_ask_in_vain():
    recipe = Recipe("sdxl", DENOISER, "fp16", {}, {"rows": [2, 2, 2], "latent_height": [32, 144, 256]}, options=None)
    record = Record(recipe, Machine("11.4.0.106", "NVIDIA H200", "9.0"), 1, "", Measured(0.0))
    assert describe(record, bounds(SDXL, 8)[DENOISER])["narrower_than_server"] == {"rows": "plan 2 to 2, server 1 to 8"}
