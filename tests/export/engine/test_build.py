"""The `engine` command up to TensorRT, and with it where a GPU and TensorRT are at hand."""

import ctypes.util
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from export.__main__ import main
from export.engine import tensorrt as engine_tensorrt
from export.engine.build import last_error, plan_components, plan_placements, refit_engine, timing_cache
from export.engine.device import driver_version, open_device
from export.engine.errors import EngineError
from export.engine.options import Options
from export.engine.record import Machine, Purpose, Recipe, Record, onnx_digests
from export.engine.tensorrt import check_version, version
from faceclip_serving.contract.placements import CPU, PLAN_FILE, placements
from faceclip_serving.contract.sdxl import SDXL, TINY_SDXL
from faceclip_serving.contract.signatures import FACE_ENCODER

ROOT = Path(__file__).resolve().parents[3]
H200 = Machine("11.4.0.106", "NVIDIA H200", "9.0", "13.0")
without_tensorrt = pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed here")


def has_gpu():
    try:
        open_device()
    except EngineError:
        return False
    return find_spec("tensorrt") is not None


@pytest.mark.skipif(ctypes.util.find_library("cuda") is not None, reason="a CUDA driver is installed here")
def test_a_missing_driver_is_one_clear_error():
    with pytest.raises(EngineError, match=r"no CUDA driver here \(.*\): TensorRT engines are built and run on the machine"):
        open_device()


@without_tensorrt
def test_a_missing_tensorrt_is_one_clear_error():
    with pytest.raises(
        EngineError, match=r"tensorrt is not installed: engines need the Python package 'tensorrt' 10\.12 or later"
    ):
        version()


@pytest.mark.parametrize("found", ["10.11.0.33", "8.6.1", "9.3.0.post12"])
def test_an_old_tensorrt_is_refused(found):
    with pytest.raises(EngineError, match=f"expected 10.12 or later, found {found}"):
        check_version(found)


@pytest.mark.parametrize("found", ["10.12.0.36", "10.16.1.11", "11.0.0.114", "11.4.0.106"])
def test_both_majors_are_taken(found):
    check_version(found)


def test_only_one_module_imports_tensorrt_and_none_when_it_is_imported():
    importing = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "export").rglob("*.py")
        if any(line.strip() == "import tensorrt as trt" for line in path.read_text().splitlines())
    ]
    assert importing == ["export/engine/tensorrt.py"]
    lines = [line for line in (ROOT / "export/engine/tensorrt.py").read_text().splitlines() if "import tensorrt" in line]
    assert lines and all(line.startswith("    ") for line in lines)
    assert engine_tensorrt.PACKAGE == "tensorrt"


def test_the_driver_tells_its_version_as_people_write_it():
    assert [driver_version(number) for number in (12080, 13000, 13010)] == ["12.8", "13.0", "13.1"]


def test_a_timing_cache_belongs_to_one_gpu_and_one_version():
    machines = (
        H200,
        Machine("11.3.0.99", *("NVIDIA H200", "9.0", "13.0")),
        Machine("11.4.0.106", "NVIDIA GeForce RTX 4090", "8.9", "13.0"),
    )
    names = {timing_cache(machine).name for machine in machines}
    assert len(names) == 3 and "NVIDIA-H200-9.0-tensorrt-11.4.0.106.cache" in names
    assert not any(" " in name or "/" in name for name in names)


def test_a_failed_build_ends_with_the_logs_last_error(tmp_path):
    log = tmp_path / "build.log"
    log.write_text("Severity.INFO a\nSeverity.ERROR first\nSeverity.ERROR no implementation for node X\nSeverity.INFO bye\n")
    assert last_error(log).splitlines()[1:] == ["  Severity.ERROR no implementation for node X", f"  the whole log: {log}"]
    log.write_text("Severity.INFO mentions ERROR in passing\n")
    assert last_error(log) == f"\n  the whole log: {log}"


def test_the_placements_say_what_gets_a_plan():
    assert plan_placements() and all(plan_components(placements(SDXL)[name]) for name in plan_placements())
    with pytest.raises(EngineError, match="placement 'cpu': runs no component on TensorRT; choose one of 8gb, 12gb"):
        plan_components(CPU)


@pytest.mark.parametrize("command", ["engine", "verify", "inspect"])
def test_what_is_missing_is_named_with_the_command_that_makes_it(command, tmp_path, capsys):
    assert main([command, "--components", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    planned = "`python -m export engine --variant tiny-sdxl --placement"
    wanted = "`python -m export onnx --variant tiny-sdxl --precision fp16`" if command == "engine" else planned
    assert not out and f"error: expected {tmp_path}/fp16/face_encoder/model." in err and wanted in err


@without_tensorrt
def test_with_the_graphs_there_tensorrt_is_what_is_missing(tmp_path, capsys):
    folder = tmp_path / "fp16" / FACE_ENCODER
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"")
    assert main(["engine", "--components", str(tmp_path), "--component", FACE_ENCODER]) == 1
    assert "tensorrt is not installed" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]


def test_a_size_beyond_the_variants_is_refused_first(tmp_path, capsys):
    assert main(["engine", "--components", str(tmp_path), "--component", "denoiser", "--size", "2048x2048"]) == 1
    assert "latent_height: expected a multiple of 8 from 64 to 1344 pixels, got 2048" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------------ refit
def plan_folder(folder, options, graph="graph", weights="weights"):
    folder.mkdir()
    (folder / "model.onnx").write_text(graph)
    (folder / "model.onnx.data").write_text(weights)
    (folder / PLAN_FILE).write_text("plan")
    recipe = Recipe("tiny-sdxl", FACE_ENCODER, "fp16", onnx_digests(folder), {"faces": [1, 1, 4]}, options)
    Record(recipe, H200, 4, "", 1.0).write(folder)
    return folder


@pytest.mark.parametrize(
    ("options", "graph", "weights", "words"),
    [
        (Options(), "graph", "weights + lora", "expected a plan built with --refit or --stripped"),
        (Options(refit=True), "another graph", "weights", "this one differs in itself"),
        (Options(stripped=True), "graph", "weights + lora", "was stripped of these very weights and takes no others"),
    ],
)
def test_weights_that_a_plan_cannot_take_are_refused(tmp_path, options, graph, weights, words):
    base = plan_folder(tmp_path / "base", options)
    other = plan_folder(tmp_path / "other", Options(), graph, weights)
    with pytest.raises(EngineError, match=words):
        refit_engine(base, other, Purpose(TINY_SDXL, placements(TINY_SDXL)["16gb"], FACE_ENCODER), H200)
    assert (other / PLAN_FILE).read_text() == "plan"


# -------------------------------------------------------------------------------------------------------------------- GPU
@pytest.mark.skipif(not has_gpu(), reason="needs a GPU and TensorRT")
def test_a_real_engine_is_built_kept_verified_and_half(tiny_fp16_components, capsys):
    arguments = ["--components", str(tiny_fp16_components), "--component", FACE_ENCODER]
    assert main(["engine", *arguments, "--refit"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["engines"][0]["built"]
    assert main(["engine", *arguments, "--refit"]) == 0
    assert not json.loads(capsys.readouterr().out.splitlines()[-1])["engines"][0]["built"]
    assert main(["verify", *arguments]) == 0
    assert main(["inspect", *arguments]) == 0
    root = str(tiny_fp16_components)
    assert main(["engine", *arguments, "--refit-from", root]) == 0
    assert main(["verify", *arguments]) == 0


@pytest.fixture(scope="module")
def tiny_fp16_components(tmp_path_factory):
    from export.onnx.export import export_component
    from export.onnx.wanted import Export

    root = tmp_path_factory.mktemp("components")
    export_component(Export(TINY_SDXL, FACE_ENCODER, "fp16"), root / "fp16" / FACE_ENCODER)
    return root
