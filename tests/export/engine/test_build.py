"""The `engine` command up to the compiler of TensorRT proper, and with it where a GPU and TensorRT are at hand."""

import json
import shutil
from argparse import ArgumentTypeError
from importlib.util import find_spec
from pathlib import Path

import pytest

from export.__main__ import main
from export.engine import agreement
from export.engine import build as engine_build
from export.engine.build import Target, parse_sm, plan_components, plan_placements, refit_engine, target_of, timing_cache
from export.engine.errors import EngineError
from export.engine.options import Options
from export.engine.record import RECORD, Machine, Measured, Purpose, Recipe, Record, onnx_digests
from export.onnx import parity
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.names import FACE_ENCODER
from faceclip_serving.contract.placements import CPU, ONNX_FILE, PLAN_FILE, TENSORRT, TRT_RTX, placements
from faceclip_serving.contract.variants.sdxl import SDXL, TINY_SDXL
from faceclip_serving.models.tensorrt_package import find_card, use

ROOT = Path(__file__).resolve().parents[3]
H200 = Machine("11.4.0.106", "NVIDIA H200", "9.0", "580.95.05")
without_tensorrt = pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed here")


def has_gpu():
    try:
        find_card()
    except UserError:
        return False
    return find_spec("tensorrt") is not None


@without_tensorrt
def test_a_missing_tensorrt_is_one_clear_error():
    with pytest.raises(UserError, match=r"the Python package 'tensorrt' is not installed: engines need it in the very version"):
        target_of(TENSORRT)


def test_one_module_of_the_builder_speaks_to_tensorrt_and_is_imported_once_its_package_is_chosen():
    for path in (ROOT / "export/engine").glob("*.py"):
        lines = path.read_text().splitlines()
        speaks = any(line.startswith(("from polygraphy", "import polygraphy")) for line in lines)
        assert speaks == (path.name == "tensorrt.py"), path
        early = [line for line in lines if line.startswith("from .tensorrt import")]
        assert not early, f"{path}: {early}"


def test_a_timing_cache_belongs_to_one_gpu_and_one_version():
    machines = (
        H200,
        Machine("11.3.0.99", "NVIDIA H200", "9.0"),
        Machine("11.4.0.106", "NVIDIA GeForce RTX 4090", "8.9"),
    )
    names = {timing_cache(machine).name for machine in machines}
    assert len(names) == 3 and "NVIDIA-H200-9.0-tensorrt-11.4.0.106.cache" in names
    assert not any(" " in name or "/" in name for name in names)


def test_the_placements_say_what_gets_a_plan():
    assert plan_placements() and all(plan_components(placements(SDXL)[name]) for name in plan_placements())
    with pytest.raises(EngineError, match="placement 'cpu': runs no component on TensorRT; choose one of 6gb, 6gb-int8w, 8gb"):
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
    assert "'tensorrt' is not installed" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]


def test_a_precision_that_another_command_makes_is_said_to_be(tmp_path, capsys):
    arguments = ["--variant", "flux", "--placement", "24gb", "--component", "denoiser", "--components", str(tmp_path)]
    assert main(["engine", *arguments]) == 1
    assert "make it with `python -m export quantize --variant flux`" in capsys.readouterr().err


def test_capabilities_are_numbers_and_what_they_are_for_is_told():
    assert parse_sm("75,86,120") == (75, 86, 120)
    for wrong in ("8.9", "89,", "-89", ""):
        with pytest.raises(ArgumentTypeError, match=rf"without the dot, .* e.g. 89 for 8.9, or 75,86,89,120, got '{wrong}'"):
            parse_sm(wrong)
    assert Target(TENSORRT, H200).label == "tensorrt 11.4.0.106"


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
    Record(recipe, H200, 4, "", Measured(1.0)).write(folder)
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
        refit_engine(base, other, Purpose(TINY_SDXL, placements(TINY_SDXL)["datacenter"], FACE_ENCODER), H200)
    assert (other / PLAN_FILE).read_text() == "plan"


class Plan:
    """Stands for a plan on a card, which is not here: answers what ONNX Runtime does, `error` times as much."""

    error = 1.0

    def __init__(self, path, signature, execution, limits, gpu=0):
        self.error = float(path.read_text())
        self._run = parity.onnx_run(self.onnx, signature)

    def run(self, arrays):
        return {name: values * self.error for name, values in self._run(arrays).items()}

    def close(self):
        pass


@pytest.mark.parametrize("error", [1.0, 1.1])
def test_a_refitted_plan_is_kept_only_if_it_agrees_with_onnx_runtime(tiny_fp32, tmp_path, monkeypatch, error):
    source = tiny_fp32 / FACE_ENCODER
    base, other = tmp_path / "base", tmp_path / "other"
    for folder in (base, other):
        shutil.copytree(source, folder)
    recipe = Recipe("tiny-sdxl", FACE_ENCODER, "fp16", onnx_digests(base), {"faces": [1, 1, 4]}, Options(refit=True))
    (base / PLAN_FILE).write_text("plan")
    (other / PLAN_FILE).write_text("before")
    Record(recipe, H200, 4, "", Measured(1.0)).write(base)
    monkeypatch.setattr(Plan, "onnx", source / ONNX_FILE, raising=False)
    monkeypatch.setattr(agreement, "TrtComponent", Plan)
    use(TRT_RTX)  # the one that is installed here
    monkeypatch.setattr("export.engine.tensorrt.refit", lambda base, onnx, plan, log: plan.write_text(str(error)))
    purpose = Purpose(TINY_SDXL, placements(TINY_SDXL)["datacenter"], FACE_ENCODER)
    if error == 1.0:
        assert not refit_engine(base, other, purpose, H200).recipe.options.refit
        assert (other / PLAN_FILE).read_text() == "1.0"
    else:
        with pytest.raises(parity.ParityError, match=r"tensor '(class|patch)_token'.*tensorrt"):
            refit_engine(base, other, purpose, H200)
        assert (other / PLAN_FILE).read_text() == "before" and not (other / RECORD).exists()


def test_a_plan_that_can_be_refitted_is_checked_before_it_is_kept(tmp_path, monkeypatch):
    """TensorRT 11.3 warns of such plans. What the command asks of the builder is the check, with the plan that was just built."""
    folder = tmp_path / "fp16" / FACE_ENCODER
    folder.mkdir(parents=True)
    (folder / ONNX_FILE).write_text("graph")
    seen = []
    use(TRT_RTX)  # the one that is installed here
    monkeypatch.setattr(engine_build, "target_of", lambda *_: Target(TENSORRT, H200))
    monkeypatch.setattr(engine_build, "build_apart", lambda work: work.plan.write_text("plan") and Measured(1.0))

    def refuse(purpose, plan, onnx, limits):
        seen.append((purpose.component, plan.read_text(), onnx, set(limits)))
        raise parity.ParityError("differs")

    monkeypatch.setattr(engine_build, "verify_file", refuse)
    arguments = ["engine", "--components", str(tmp_path), "--component", FACE_ENCODER]
    assert main([*arguments, "--refit"]) == 1
    assert seen == [(FACE_ENCODER, "plan", folder / ONNX_FILE, {"faces"})] and not (folder / PLAN_FILE).exists()
    assert main([*arguments]) == 0 and len(seen) == 1
    assert (folder / PLAN_FILE).read_text() == "plan"


# -------------------------------------------------------------------------------------------------------------------- GPU
@pytest.mark.skipif(not has_gpu(), reason="needs a GPU and TensorRT")
def test_a_real_engine_is_built_kept_verified_and_half(tiny_fp16_components, capsys):
    arguments = ["--components", str(tiny_fp16_components), "--component", FACE_ENCODER]
    assert main(["engine", *arguments, "--refit"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["components"][FACE_ENCODER]["built"]
    assert main(["engine", *arguments, "--refit"]) == 0
    assert not json.loads(capsys.readouterr().out.splitlines()[-1])["components"][FACE_ENCODER]["built"]
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
