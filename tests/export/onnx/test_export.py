"""Exported files: what they declare, that nothing half-made appears, and that only what changed is made again."""

import json
import os
import shutil
import subprocess
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import helper

from export.__main__ import main
from export.checkpoint.digests import sha256
from export.checkpoint.lora import Lora
from export.networks import components as component_table
from export.onnx import export as to_onnx
from export.onnx import parity
from export.onnx.errors import ExportError, GraphError, ParityError
from export.onnx.export import export_component, export_components, outline, unnamed
from export.onnx.graph import conform, verify_file
from export.onnx.record import METADATA, read_metadata
from export.onnx.wanted import Export
from export.paths import ROOT
from faceclip_serving.contract.components import components
from faceclip_serving.contract.names import COMPONENTS, DENOISER, FACE_ENCODER
from faceclip_serving.contract.placements import FUSED_FILE, ONNX_FILE, ONNX_WEIGHTS_FILE
from faceclip_serving.contract.tensors import DType, Signature, Tensor
from faceclip_serving.contract.variants.architectures import SDXLArchitecture
from faceclip_serving.contract.variants.sdxl import NANO, SDXL, TINY_SDXL
from tests.benchmarks.graphs import model, value
from tests.export.micro import MICRO


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_session_shows_the_signature(tiny_fp32, component):
    session = onnxruntime.InferenceSession(str(tiny_fp32 / component / ONNX_FILE), providers=["CPUExecutionProvider"])
    signature = components(TINY_SDXL)[component]
    types = {DType.FP32: "tensor(float)", DType.INT64: "tensor(int64)"}
    for declared, found in ((signature.inputs, session.get_inputs()), (signature.outputs, session.get_outputs())):
        assert [(t.name, types[t.dtype], list(t.axes)) for t in declared] == [(v.name, v.type, v.shape) for v in found]


@pytest.mark.proof
@pytest.mark.parametrize("component", [FACE_ENCODER, DENOISER])
def test_fp16_stays_inside(micro_fp16, component):
    verify_file(micro_fp16 / component / ONNX_FILE, components(MICRO)[component])
    proto = onnx.load(str(micro_fp16 / component / ONNX_FILE), load_external_data=False)
    assert {value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)} == {onnx.TensorProto.FLOAT}


@pytest.mark.proof
def test_an_outline_is_the_exported_graph_without_the_values_of_its_weights(micro_fp16):
    exported = onnx.load(str(micro_fp16 / FACE_ENCODER / ONNX_FILE), load_external_data=False).graph
    found = onnx.load_model_from_string(outline(Export(MICRO, FACE_ENCODER, "fp16"))).graph
    assert (found.node, found.input, found.output) == (exported.node, exported.input, exported.output)
    weights = [(weight.name, tuple(weight.dims), weight.data_type) for weight in exported.initializer]
    assert sorted((weight.name, tuple(weight.dims), weight.data_type) for weight in found.initializer) == sorted(weights)
    assert found.ByteSize() < 200_000 and not any(weight.raw_data for weight in found.initializer)


@pytest.mark.parametrize("component", COMPONENTS)
def test_graphs_say_nothing_of_the_machine_that_made_them(tiny_fp32, component):
    path = tiny_fp32 / component / ONNX_FILE
    proto = onnx.load(str(path), load_external_data=False)
    notes = [*proto.metadata_props, *proto.graph.metadata_props]
    for item in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        notes += [*item.metadata_props, *([item.doc_string] if item.doc_string else [])]
    assert notes == []
    assert str(Path.cwd()).encode() not in path.read_bytes() and b".py" not in path.read_bytes()


@pytest.mark.parametrize("component", COMPONENTS)
def test_weights_lie_beside_the_graph_in_the_order_of_their_use(tiny_fp32, component):
    proto = onnx.load(str(tiny_fp32 / component / ONNX_FILE), load_external_data=False)
    outside = [t for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert outside and {e.value for t in outside for e in t.external_data if e.key == "location"} == {ONNX_WEIGHTS_FILE}
    assert (tiny_fp32 / component / ONNX_FILE).stat().st_size < 2e6
    constant = {tensor.name for tensor in proto.graph.initializer}
    assert not [node.name for node in proto.graph.node if node.op_type == "Transpose" and node.input[0] in constant]


def test_metadata_describes_the_files(micro_fp16):
    folder = micro_fp16 / DENOISER
    metadata = json.loads((folder / METADATA).read_text())
    assert {"variant": "micro-sdxl", "component": DENOISER, "precision": "fp16", "opset": 21}.items() <= metadata.items()
    assert metadata["weights"] == {"source": "seeded"} and metadata["parameters"] > 100_000
    assert metadata["files"].keys() == {ONNX_FILE, FUSED_FILE, ONNX_WEIGHTS_FILE}
    for name, entry in metadata["files"].items():
        assert entry == {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
    checks = {finding["check"] for finding in metadata["parity"]["findings"]}
    assert checks == {"torch fp16", "onnxruntime", "neighbours", "attention as one operator"}
    assert all(finding["error"] <= metadata["parity"]["tolerance"] for finding in metadata["parity"]["findings"])
    assert metadata["peak_memory_bytes"] > 1e8 and set(metadata["seconds"]) >= {"weights", "trace", "files", "parity"}
    assert onnx.load(str(folder / ONNX_FILE), load_external_data=False).opset_import[0].version == 21


@pytest.mark.proof
def test_what_has_not_changed_is_kept_and_what_was_damaged_is_made_again(tmp_path):
    folder = tmp_path / FACE_ENCODER
    made = export_component(Export(MICRO, FACE_ENCODER, "fp32"), folder)
    stamp = (folder / ONNX_FILE).stat().st_mtime_ns
    assert export_component(Export(MICRO, FACE_ENCODER, "fp32"), folder) == made
    assert (folder / ONNX_FILE).stat().st_mtime_ns == stamp

    with (folder / ONNX_WEIGHTS_FILE).open("r+b") as file:
        file.truncate(100)
    export_component(Export(MICRO, FACE_ENCODER, "fp32"), folder)
    assert (folder / ONNX_WEIGHTS_FILE).stat().st_size == made["files"][ONNX_WEIGHTS_FILE]["bytes"]

    deeper = replace(MICRO, architecture=replace(MICRO.architecture, face=replace(MICRO.architecture.face, depth=2)))
    assert export_component(Export(deeper, FACE_ENCODER, "fp32"), folder)["identity"] != made["identity"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [FACE_ENCODER]


@pytest.mark.proof
@pytest.mark.parametrize("component", [FACE_ENCODER, DENOISER])
def test_integer_weights_follow_from_the_same_graph_in_half_precision_to_the_byte(
    micro_fp16, tmp_path, monkeypatch, capsys, component
):
    def refuse(*_):
        raise AssertionError("traced")

    wanted, half = Export(MICRO, component, "int8w"), tmp_path / "half"
    shutil.copytree(micro_fp16 / component, half)
    os.link(half / ONNX_WEIGHTS_FILE, tmp_path / "as in an assembled repository")
    asked = []
    monkeypatch.setattr(to_onnx, "require_disk", lambda what, wanted_bytes, folder: asked.append(wanted_bytes))
    traced = export_component(wanted, tmp_path / "traced")
    monkeypatch.setattr(to_onnx, "trace", refuse)
    derived = export_component(wanted, tmp_path / "derived", half)
    assert asked[1] - asked[0] == 2 * derived["parameters"], "room for the copy of the graph in half precision"
    assert derived["notes"]["int8"]["weights"] > 0
    for same in ("files", "identity", "notes", "operators", "parity"):
        assert derived[same] == traced[same]
    deeper = replace(MICRO, architecture=replace(MICRO.architecture, face=replace(MICRO.architecture.face, depth=2)))
    for other in (replace(wanted, variant=deeper), replace(wanted, precision="fp32")):
        with pytest.raises(AssertionError, match="traced"):
            export_component(other, tmp_path / "other", half)
    weights = bytearray((half / ONNX_WEIGHTS_FILE).read_bytes())
    weights[len(weights) // 2] ^= 1
    (half / ONNX_WEIGHTS_FILE).unlink()
    (half / ONNX_WEIGHTS_FILE).write_bytes(weights)
    with pytest.raises(AssertionError, match="traced"):
        export_component(wanted, tmp_path / "from damaged", half)
    assert "is not what was written there" in capsys.readouterr().err


def test_a_failed_export_leaves_what_was_there(tmp_path, monkeypatch):
    folder = tmp_path / FACE_ENCODER
    folder.mkdir()
    (folder / METADATA).write_text("from before")
    row = component_table.NETWORKS[SDXLArchitecture][FACE_ENCODER]
    strict = {**component_table.NETWORKS[SDXLArchitecture], FACE_ENCODER: replace(row, tolerance={"fp32": 1e-12})}
    monkeypatch.setattr(component_table, "NETWORKS", {SDXLArchitecture: strict})
    with pytest.raises(ParityError, match=r"face_encoder in fp32: tensor .* tolerance 1e-12"):
        export_component(Export(MICRO, FACE_ENCODER, "fp32"), folder)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == [
        FACE_ENCODER,
        f"{FACE_ENCODER}/{METADATA}",
    ]


STYLE = {"file": "style.safetensors", "scale": 0.8, "sha256": "ab", "peft": "0.18"}
CHOSEN = {"source": "checkpoint", "file": "unet.safetensors", "bytes": 9, "given": True}
BROUGHT = {"source": "checkpoint", "file": "nano.safetensors", "bytes": 9, "given": False}
OLD = {key: value for key, value in CHOSEN.items() if key != "given"}


@pytest.mark.parametrize(
    ("variant", "weights", "loras", "words"),
    [
        (TINY_SDXL, {"source": "seeded"}, [STYLE], "with LoRA style.safetensors:0.8, and"),
        (SDXL, OLD, [STYLE], "with LoRA style.safetensors:0.8 and the weights of unet.safetensors, and"),
        (TINY_SDXL, CHOSEN, [], "with the weights of unet.safetensors, and"),
        (NANO, CHOSEN, [], "with the weights of unet.safetensors, and"),
        (NANO, BROUGHT, [], None),
        (NANO, OLD, [], None),
        (TINY_SDXL, {"source": "seeded"}, [], None),
    ],
)
def test_a_lora_or_checkpoint_that_files_were_made_with_is_not_dropped_in_silence(tmp_path, variant, weights, loras, words):
    folder = tmp_path / "fp32" / DENOISER
    folder.mkdir(parents=True)
    before = json.dumps({"identity": "x", "files": {}, "weights": weights, "loras": loras})
    (folder / METADATA).write_text(before)
    wanted = Export(variant, DENOISER, "fp32", seeded=True)
    if words is None:
        assert unnamed(wanted, folder) == []
    else:
        for attempt in (lambda: export_component(wanted, folder), lambda: list(export_components([wanted], tmp_path))):
            with pytest.raises(
                ExportError, match=f"denoiser fp32: {folder} was made {words} .*LORA=FILE:SCALE.*delete that folder"
            ):
                attempt()
        assert [path.name for path in folder.iterdir()] == [METADATA] and (folder / METADATA).read_text() == before
    named = replace(wanted, checkpoint=tmp_path, loras=(Lora(tmp_path / "another.safetensors"),))
    assert unnamed(named, folder) == [], "what is named takes the place of what was"


def test_make_names_the_loras_in_the_export():
    command = ["make", "--dry-run", "export", "VARIANT=sdxl", "PLACEMENT=8gb", "LORA=a.safetensors:0.8 b.safetensors"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in told.splitlines() if "-m export onnx" in line]
    assert line.endswith("--variant sdxl --placement 8gb   --lora a.safetensors:0.8 --lora b.safetensors"), line


def test_torchs_weights_are_gone_when_onnx_runtime_loads_its_own(tmp_path, monkeypatch):
    weights, left_bytes = [], []

    def build(*arguments):
        module = component_table.build(*arguments)
        weights.extend(weakref.ref(tensor) for tensor in module.parameters())
        return module

    def onnx_run(*arguments):
        left_bytes.append(sum(tensor.nbytes for tensor in (reference() for reference in weights) if tensor is not None))
        return parity.onnx_run(*arguments)

    monkeypatch.setattr(to_onnx, "build", build)
    monkeypatch.setattr(to_onnx, "parity", SimpleNamespace(**{**vars(parity), "onnx_run": onnx_run}))
    made = export_component(Export(MICRO, FACE_ENCODER, "fp16"), tmp_path / FACE_ENCODER)
    # Parameters that no output needs may stay, as the mask token of the training does.
    both = len(left_bytes) == 2  # as every runtime reads it, and with attention as one operator
    assert both and max(left_bytes) < 0.01 * made["files"][ONNX_WEIGHTS_FILE]["bytes"]


def test_published_weights_are_asked_for():
    with pytest.raises(ExportError, match=r"checkpoint: variant 'sdxl' has published weights; .*--seeded"):
        export_component(Export(SDXL, FACE_ENCODER, "fp32"), Path("never/written"))
    assert not Path("never").exists()


def test_an_unknown_precision_is_named():
    with pytest.raises(ExportError, match="precision: expected one of fp32, fp16, int8w, got 'int8'"):
        export_component(Export(MICRO, FACE_ENCODER, "int8"), Path("never/written"))


def test_metadata_that_cannot_be_read_counts_as_none(tmp_path):
    assert read_metadata(tmp_path) is None
    (tmp_path / METADATA).write_text('{"identity"')
    assert read_metadata(tmp_path) is None


def test_an_error_in_a_components_process_comes_back(tmp_path):
    with pytest.raises(ExportError, match="published weights"):
        list(export_components([Export(SDXL, FACE_ENCODER)], tmp_path))


def test_an_axis_that_was_traced_as_a_number_is_found():
    declared = Signature("net", (Tensor("x", DType.FP32, ("rows", 4), ""),), (Tensor("y", DType.FP32, ("rows", 4), ""),), "")
    program = torch.onnx.export(
        torch.nn.Linear(4, 4).eval(), (torch.randn(2, 4),), dynamo=True, input_names=["x"], output_names=["y"], verbose=False
    )
    with pytest.raises(GraphError, match=r"net: input 'x' is declared FP32 \[rows, 4\], the graph has FLOAT \[2,4\]"):
        conform(program.model, declared)
    renamed = replace(declared, inputs=(replace(declared.inputs[0], name="z"),))
    with pytest.raises(GraphError, match=r"expected inputs \['z'\], the graph has \['x'\]"):
        conform(program.model, renamed)


def test_sizes_within_a_graph_are_told_in_the_signatures_axes():
    """Under whatever names the exporter gives them, and where an axis comes in multiples."""
    found = model(
        [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Flatten", ["a"], ["y"])],
        [value("x", ["s1", 4, "2*s12"])],
        [value("y", ["s1", "8*s12"])],
        inner=[value("a", ["s1", 4, "2*s12 + s1"])],
    )
    found.ir_version = 10
    declared = (Tensor("x", DType.FP32, ("rows", 4, "side"), ""), Tensor("y", DType.FP32, ("rows", "cells"), ""))
    graph = ir.from_proto(found)
    conform(graph, Signature("net", declared[:1], declared[1:], ""))
    assert [[str(dim) for dim in node.outputs[0].shape] for node in graph.graph] == [
        ["rows", "4", "2*(side//2) + rows"],
        ["rows", "cells"],
    ]


@pytest.mark.proof
def test_the_command_exports_and_ends_in_json(tmp_path, capsys):
    arguments = ["onnx", "--variant", TINY_SDXL.name, "--component", FACE_ENCODER, "--output", str(tmp_path)]
    assert main(arguments) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    (shown,) = document["components"]
    assert (document["variant"], document["precision"], shown["component"]) == (TINY_SDXL.name, "fp32", FACE_ENCODER)
    session = onnxruntime.InferenceSession(str(Path(shown["folder"]) / ONNX_FILE), providers=["CPUExecutionProvider"])
    (class_token, _) = session.run(None, {"aligned_faces": np.zeros((1, 3, 448, 448), np.float32)})
    np.testing.assert_allclose(np.linalg.norm(class_token, axis=-1), 1.0, rtol=1e-5)
    # Another process finds nothing to do: the identity holds nothing of the process that wrote it.
    stamp = (Path(shown["folder"]) / ONNX_FILE).stat().st_mtime_ns
    export_component(Export(TINY_SDXL, FACE_ENCODER, "fp32"), Path(shown["folder"]))
    assert (Path(shown["folder"]) / ONNX_FILE).stat().st_mtime_ns == stamp


def test_the_command_reports_errors_in_one_line(tmp_path, capsys):
    assert main(["onnx", "--variant", SDXL.name, "--component", FACE_ENCODER, "--output", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error:")]
    assert "published weights" in line and captured.out == ""
