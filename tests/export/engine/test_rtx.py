"""Real plans of TensorRT for RTX, compiled here by NVIDIA's compiler: no GPU is needed for that."""

import json
import shutil
from dataclasses import replace
from importlib.util import find_spec

import onnx
import pytest
from onnx import TensorProto, helper

from export.__main__ import main
from export.engine.build import build_engine, target_of
from export.engine.errors import EngineError
from export.engine.options import Options
from export.engine.record import LOG, Machine, Purpose, check_plan, read_record
from export.engine.shapes import shape_ranges
from faceclip_serving.contract.components import components
from faceclip_serving.contract.names import COMPONENTS, DENOISER, FACE_ENCODER, TEXT_ENCODER
from faceclip_serving.contract.placements import ONNX_FILE, PLAN_FILE, TRT_RTX, placements
from faceclip_serving.contract.tensors import DType
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.models.tensorrt_package import use

from ..micro import MICRO, exported
from .kept import kept

pytestmark = pytest.mark.skipif(
    find_spec(TRT_RTX.package) is None or find_spec("polygraphy") is None,
    reason=f"{TRT_RTX.package} or polygraphy is not on this platform: engines cannot be compiled here",
)
PLACEMENT = placements(TINY_SDXL)["16gb"].on(TRT_RTX.name)
RTX_4090 = ("NVIDIA GeForce RTX 4090", "8.9", "580.95.05")


def test_the_largest_of_several_cards_counts_and_silence_is_not_zero():
    use(TRT_RTX)
    from export.engine.tensorrt import reported

    log = "Total Activation Memory: 300 bytes\nTotal Weights Memory: 7 bytes\nTotal Activation Memory: 100 bytes\n"
    assert reported(log) == {"activation_bytes": 300, "scratch_bytes": None, "weight_bytes": 7}


def linked(source, folder):
    """The exported component in a folder of its own, since plans are written beside it."""
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.name.startswith((ONNX_FILE, "metadata")):
            shutil.copy(path, folder)  # a hard link would make others refuse the weights, which have more than one name then
    return folder


def in_fp32(variant, component):
    """What the plan of a component's FP32 graph is to serve: the placement's calls."""
    execution = replace(PLACEMENT.components[component], precision="fp32")
    return Purpose(variant, replace(PLACEMENT, components={**PLACEMENT.components, component: execution}), component)


@pytest.mark.proof
@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_is_compiled_for_two_series_in_one_plan_and_its_needs_are_recorded(component, tiny_fp32):
    if component in (
        TEXT_ENCODER,
        DENOISER,
    ):  # the compiler takes longer for these of the tiny variant than an export of smaller ones
        variant, graph = MICRO, exported(MICRO, component, "fp32")
    else:
        variant, graph = TINY_SDXL, tiny_fp32 / component
    with kept(f"two-series-{component}", graph) as folder:
        require_recorded(folder, target_of(TRT_RTX, (120, 89)), in_fp32(variant, component))


def require_recorded(folder, target, purpose):
    variant, component, limits = purpose.variant, purpose.component, purpose.bounds()
    record, _ = build_engine(variant, component, "fp32", folder, limits, Options(), target)
    assert record == read_record(folder) and record.recipe.sm == (89, 120)
    assert check_plan(folder, purpose, Machine(target.machine.tensorrt, *RTX_4090), for_triton=True, whole=True) == record
    weights = sum(path.stat().st_size for path in folder.glob(f"{ONNX_FILE}*"))
    measured = record.measured
    assert 0.5 * weights < measured.weight_bytes < 2 * weights
    assert measured.activation_bytes >= measured.scratch_bytes > 0 and measured.peak_host_bytes > record.plan_bytes
    log = (folder / LOG).read_text()
    for name, (low, usual, high) in shape_ranges(components(variant)[component], limits).items():
        assert f"{name} [min={low}, opt={usual}, max={high}]" in log
    assert build_engine(variant, component, "fp32", folder, limits, Options(), target) == (record, False)


@pytest.mark.proof
@pytest.mark.parametrize(("component", "sm"), [(FACE_ENCODER, (75, 86, 89, 120)), (DENOISER, (75, 86, 89, 120))])
def test_half_precision_is_compiled_for_the_cards_that_take_it(component, sm, micro_fp16):
    limits = Purpose(TINY_SDXL, PLACEMENT, component).bounds()
    streamed = Options(weight_streaming=True)
    with kept(f"streamed-{component}", micro_fp16 / component) as folder:
        record, _ = build_engine(MICRO, component, "fp16", folder, limits, streamed, target_of(TRT_RTX, sm))
        assert record.recipe.sm == sm and record.measured.weight_bytes
        assert "WEIGHT_STREAMING" in (folder / LOG).read_text()


def test_the_command_says_what_it_built_as_json_and_keeps_it(tiny_fp32, tmp_path, capsys):
    linked(tiny_fp32 / FACE_ENCODER, tmp_path / "fp16" / FACE_ENCODER)  # what a graph computes in does not matter here
    command = ["engine", "--sm", "89", "--json", "--components", str(tmp_path), "--component", FACE_ENCODER]
    assert main(command) == 0
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    found = json.loads(line)
    assert found["runtime"] == f"tensorrt-rtx {target_of(TRT_RTX, (89,)).machine.tensorrt}" and found["sm"] == [89]
    assert found["components"].keys() == {FACE_ENCODER} and found["components"][FACE_ENCODER]["built"]
    size = (tmp_path / "fp16" / FACE_ENCODER / PLAN_FILE).stat().st_size
    assert found["components"][FACE_ENCODER]["plan_mb"] == pytest.approx(size / 1e6, abs=1e-3)
    assert all(found["components"][FACE_ENCODER][key] > 0 for key in ("activation_bytes", "weight_bytes", "seconds"))
    assert "activations" in err
    assert main(command) == 0
    again = json.loads(capsys.readouterr().out)["components"][FACE_ENCODER]
    assert not again.pop("built") and again.items() <= found["components"][FACE_ENCODER].items()


@pytest.mark.parametrize(("sm", "words"), [((90,), "compiles for 75, .*120.*, got 90"), ((89, 60), "got 60, 89")])
def test_a_card_that_it_does_not_compile_for_is_refused(sm, words):
    with pytest.raises(EngineError, match=rf"sm: tensorrt_rtx .* {words}; other cards need `--runtime tensorrt`"):
        target_of(TRT_RTX, sm)


def test_a_graph_with_an_unsupported_operator_is_refused_with_its_name(tmp_path):
    face = components(TINY_SDXL)[FACE_ENCODER]
    x = helper.make_tensor_value_info(face.inputs[0].name, TensorProto.FLOAT, list(face.inputs[0].axes))
    nodes, outputs = [], []
    for i, tensor in enumerate(face.outputs):
        outputs.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.axes)))
        nodes.append(helper.make_node("Relu" if i else "Bernoulli", [x.name], [tensor.name], name=f"dice{i}"))
    graph = helper.make_graph(nodes, "g", [x], outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / ONNX_FILE)
    limits = Purpose(TINY_SDXL, PLACEMENT, FACE_ENCODER).bounds()
    with pytest.raises(
        EngineError, match=r"Could not parse ONNX(.|\n)*with name: dice0 and operator: Bernoulli(.|\n)*the whole log"
    ):
        build_engine(TINY_SDXL, FACE_ENCODER, "fp16", tmp_path, limits, Options(), target_of(TRT_RTX, (89,)))
    assert not (tmp_path / PLAN_FILE).exists()


@pytest.mark.parametrize("component", COMPONENTS)
def test_what_the_parser_reads_has_the_signatures_names_types_and_axes(component, tiny_fp32):
    target_of(TRT_RTX, (89,))
    from export.engine.tensorrt import check_network, parsed

    path, signature = tiny_fp32 / component / ONNX_FILE, components(TINY_SDXL)[component]
    read = parsed(path)  # parser and builder live as long as the network
    check_network(path, read[1], signature)
    first, *others = signature.inputs
    for wrong in (
        replace(first, name="another"),
        replace(first, dtype=DType.BOOL),
        replace(first, axes=(*first.axes, 1)),
        replace(first, axes=(*first.axes[:1], 7777, *first.axes[2:])),
    ):
        if wrong.axes[1:2] == (7777,) and not isinstance(first.axes[1], int):
            continue  # a size is checked where the graph knows it
        with pytest.raises(
            EngineError, match=f"inputs: expected .*{wrong.name}.*, the graph has .*{first.name}.*; export it again"
        ):
            check_network(path, read[1], replace(signature, inputs=(wrong, *others)))
    with pytest.raises(EngineError, match="outputs: expected"):
        check_network(path, read[1], replace(signature, outputs=signature.outputs[:-1]))
