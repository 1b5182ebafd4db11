"""What products read, by the compiler's log: from lines as it writes them, and of plans that it compiles here."""

import io
from importlib.util import find_spec

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.engine.build import build_apart, build_engine, target_of, told_products
from export.engine.errors import EngineError
from export.engine.log_layers import Log, Products, products
from export.engine.options import Options
from export.engine.record import Measured, Purpose, read_record
from export.engine.shapes import ShapeRange
from export.networks.components import network
from export.onnx import graph
from export.onnx.integer_weights import quantize
from export.onnx.wanted import WEIGHT_BITS
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.placements import ONNX_FILE, TRT_RTX, placements
from faceclip_serving.contract.tensors import DType, Signature, Tensor
from faceclip_serving.contract.variants.sdxl import TINY_SDXL

from ..micro import MICRO
from .kept import kept


def tensor(dims, datatype):
    return f"{{ Name: __mye1_myl0, Dimensions: [{dims}], Strides: [{dims}], StrideOrder: [1,0], Datatype: {datatype}, Format: (Linear) }}"


def line(name, kind, inputs, constants, outputs):
    listed = (", ".join(tensor(*each) for each in group) for group in (inputs, constants, outputs))
    inner = "Inputs: [ {}], Constants: [ {}], Outputs: [ {}]".format(*listed)
    return f"    Name: {name}, LayerType: {kind}, {inner}, TacticName: , StreamId: 0, Metadata: [ONNX Layer: a, b]"


X, Y = ("-1,320", "Half"), ("-1,640", "Half")
LISTED = [
    "    Name: __mye80_0_myl0_0, LayerType: wait, Inputs: [], Outputs: [], StreamId: 1, Metadata: ",
    line("__myl_CastMulCastFc_myl0_2", "runtime_fusion", [X], [("1,640", "Half"), ("320,640", "Int8")], [Y]),
    line("__myl_ReplCastMulCastFcAdd_myl0_3", "runtime_fusion", [X, Y], [("320,640", "Int4"), ("5,640", "Half")], [Y]),
    line("__myl_CastMulCast_myl0_4", "kgen", [], [("64,1,1,1", "Half"), ("64,32,3,3", "Int8")], [("64,32,3,3", "Half")]),
    line("__myl_CastMulCast_myl0_5", "kgen", [], [("8,1,1,1", "Half"), ("8,8,3,3", "Int8")], [("8,8,3,3", "Half")]),
    line("conv_myl0_6", "correlation", [("-1,32,-1,-1", "Half"), ("64,32,3,3", "Half")], [("1", "Float")], [("-1,64,-1,-1", "Half")]),
    line("mm_myl0_7", "gemm", [("-1,320", "FP8")], [("320,640", "FP8"), ("1", "Float")], [Y]),
    line("_gemm_mha_v2_myl0_8", "kgen", [("-1,5,77,64", "Half")] * 3, [], [("-1,5,77,64", "Half")]),
    line("__myl_CastSilu_myl0_9", "kgen", [("-1,320", "Float")], [("320,640", "Half")], [Y]),
]  # fmt: skip


def test_factors_are_counted_by_type_and_what_is_unfolded_by_size():
    log = "\n".join(["[V] Total Weights Memory: 7 bytes", "[X] Layers:", *LISTED, "[V] after", LISTED[1]])
    found = products(log)
    assert found.factors == {"FP16 x FP16": 2, "FP16 x INT4": 1, "FP16 x INT8": 1, "FP8 x FP8": 1}
    assert (found.unfolded, found.unfolded_bytes) == (2, 64 * 32 * 9 * 2)
    assert products("[V] nothing is listed\n    Name: a, LayerType: gemm") == Products()
    words = told_products(Measured(1.0, **vars(found)))
    assert "1 products FP16 x INT4" in words and words[-1] == "2 weights unfolded first, the largest 0.0 MB"


def test_of_the_compilers_chatter_a_log_keeps_the_layers():
    file = io.StringIO()
    log = Log(file)
    for text in ("[V] one\n[X] chat", "ter\n    of two lines\n", "[X] Layers:\n    Name: a\n", "[X] more\n[E] an error\n"):
        assert log.write(text) == len(text)
    assert file.getvalue() == "[V] one\n[X] Layers:\n    Name: a\n[E] an error\n"


# ---------------------------------------------------------------------------------------------------------- real plans
needs_compiler = pytest.mark.skipif(
    find_spec(TRT_RTX.package) is None or find_spec("polygraphy") is None,
    reason=f"{TRT_RTX.package} or polygraphy is not on this platform: engines cannot be compiled here",
)
LIMITS = Purpose(TINY_SDXL, placements(TINY_SDXL)["16gb"].on(TRT_RTX.name), DENOISER).bounds()


@pytest.fixture(scope="module")
def exported(micro_fp16, tmp_path_factory):
    """Precision -> the folder of the denoiser's graph, and which weights were stored in how many bits."""
    root = tmp_path_factory.mktemp("bits")
    found = {}
    for precision, bits in (("fp16", None), *WEIGHT_BITS.items()):
        folder = root / precision
        folder.mkdir()
        model = ir.load(micro_fp16 / DENOISER / ONNX_FILE)
        row = network(MICRO, DENOISER)
        counts = {} if bits is None else quantize(model, bits, row.keep_half, row.keep_eight(MICRO))
        graph.save(model, folder)
        found[precision] = folder, counts
    return found


def compiled(exported, precision, sm):
    cards = "-".join(map(str, sm))
    with kept(f"{precision}-{cards}", exported[precision][0]) as folder:
        record, _ = build_engine(MICRO, DENOISER, precision, folder, LIMITS, Options(), target_of(TRT_RTX, sm))
        assert read_record(folder) == record
        return record.measured


@pytest.mark.proof
@needs_compiler
@pytest.mark.parametrize(("precision", "bits"), [("int8w", "INT8"), ("int4w", "INT4")])
def test_integer_weights_stay_so_on_the_card_and_cost_no_memory_elsewhere(precision, bits, exported):
    whole, narrow = compiled(exported, "fp16", (86, 89, 120)), compiled(exported, precision, (86, 89, 120))
    counts = exported[precision][1]
    saved = sum(count["values"] for count in counts.values())  # a byte each in INT8
    assert whole.weight_bytes - narrow.weight_bytes > 0.9 * saved
    assert narrow.activation_bytes <= 1.1 * whole.activation_bytes + narrow.unfolded_bytes
    matrices = sum(count for types, count in narrow.factors.items() if types in ("FP16 x INT8", "FP16 x INT4"))
    assert matrices + narrow.unfolded == sum(count["weights"] for count in counts.values())
    assert narrow.factors[f"FP16 x {bits}"] > 0 and narrow.unfolded > 0
    assert set(whole.factors) == {"FP16 x FP16"} and not whole.unfolded


@pytest.mark.proof
@needs_compiler
def test_int8_weights_are_taken_by_rtx_20_which_unfolds_most_and_int4_ones_are_refused(exported):
    measured, notes = compiled(exported, "int8w", (75,)), exported["int8w"][1]
    read = measured.factors["FP16 x INT8"]
    assert measured.unfolded + read == notes["int8"]["weights"] and measured.unfolded > 2 * read
    with pytest.raises(EngineError, match="sm75, because the model contains HW-specific datatypes: int4"):
        compiled(exported, "int4w", (75, 86))


def both_factors(operator, element, path):
    """A product of which both factors are quantised explicitly, with inputs and outputs in FP32; and its signature."""
    shape, axes = ((64, 32), ("rows", 8, 64)) if operator == "MatMul" else ((64, 64, 3, 3), ("rows", 64, 16, 16))
    answer = ("rows", 8, 32) if operator == "MatMul" else axes
    channel = 1 if operator == "MatMul" else 0
    values = np.random.default_rng(0).integers(-7, 8, shape)
    stored = [
        helper.make_tensor("w8", element, shape, values.ravel().tolist()),
        helper.make_tensor("zero", element, (), [0]),
        numpy_helper.from_array(np.array(0.1, np.float16), "scale"),
        numpy_helper.from_array(np.full(shape[channel], 0.01, np.float16), "scales"),
    ]
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("QuantizeLinear", ["half", "scale", "zero"], ["x8"]),
        helper.make_node("DequantizeLinear", ["x8", "scale", "zero"], ["given"]),
        helper.make_node("DequantizeLinear", ["w8", "scales"], ["weight"], axis=channel),
        helper.make_node(operator, ["given", "weight"], ["product"], **({} if channel else {"pads": [1] * 4})),
        helper.make_node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims)) for name, dims in (("x", axes), ("y", answer))]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return Signature("product", (Tensor("x", DType.FP32, axes, ""),), (Tensor("y", DType.FP32, answer, ""),), "")


def compiled_by_hand(operator, element, sm, folder):
    target = target_of(TRT_RTX, (sm,))
    from export.engine.tensorrt import Work

    signature = both_factors(operator, element, folder / ONNX_FILE)
    sizes = signature.inputs[0].axes[1:]
    shapes = {"x": ShapeRange((1, *sizes), (2, *sizes), (2, *sizes))}
    plan = folder / "model.plan"
    return build_apart(
        Work(folder / ONNX_FILE, plan, folder / "log", signature, shapes, Options(), target.runtime, target.sm, plan)
    )


@pytest.mark.proof
@needs_compiler
@pytest.mark.parametrize("operator", ["MatMul", "Conv"])
@pytest.mark.parametrize(("element", "sm", "factors"), [
    (TensorProto.FLOAT8E4M3FN, 89, "FP8 x FP8"), (TensorProto.FLOAT8E4M3FN, 86, None), (TensorProto.INT8, 86, "INT8 x INT8"),
])  # fmt: skip
def test_products_whose_factors_are_both_quantised_run_so(operator, element, sm, factors, tmp_path):
    if factors is None:
        with pytest.raises(EngineError, match="sm86, because the model contains HW-specific datatypes: fp8_e4m3"):
            compiled_by_hand(operator, element, sm, tmp_path)
        return
    measured = compiled_by_hand(operator, element, sm, tmp_path)
    assert measured.factors == {factors: 1} and not measured.unfolded
