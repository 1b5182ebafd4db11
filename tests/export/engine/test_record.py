"""Keep, rebuild, load or refuse: decided from what is written beside a plan."""

from dataclasses import replace

import pytest

from export.checkpoint.digests import sha256
from export.engine.errors import EngineError
from export.engine.options import Options
from export.engine.record import (
    RECORD,
    Machine,
    Recipe,
    Record,
    check_plan,
    incompatibility,
    onnx_digests,
    read_record,
    reasons_to_build,
)
from faceclip_serving.contract.placements import PLAN_FILE

H200 = Machine("11.4.0.106", "NVIDIA H200", "9.0", "13.0")
RECIPE = Recipe("sdxl", "denoiser", "fp16", {"model.onnx": "aa", "model.onnx.data": "bb"}, {"rows": [1, 2, 8]}, Options())


@pytest.fixture
def folder(tmp_path):
    """A folder with a file in the place of a plan, and its record."""
    (tmp_path / PLAN_FILE).write_bytes(b"native code")
    Record(RECIPE, H200, 11, sha256(tmp_path / PLAN_FILE), 12.5).write(tmp_path)
    return tmp_path


def rewrite(folder, **changes):
    record = read_record(folder)
    replace(record, **changes).write(folder)


def test_a_record_is_read_back_as_written(folder):
    assert read_record(folder) == Record(RECIPE, H200, 11, sha256(folder / PLAN_FILE), 12.5)


def test_what_is_up_to_date_is_kept_and_a_new_driver_changes_nothing(folder):
    assert reasons_to_build(folder, RECIPE, H200) == []
    assert reasons_to_build(folder, RECIPE, replace(H200, cuda_driver="13.3")) == []


@pytest.mark.parametrize(
    ("recipe", "machine", "words"),
    [
        (replace(RECIPE, onnx={"model.onnx": "aa", "model.onnx.data": "cc"}), H200, "onnx changed"),
        (replace(RECIPE, bounds={"rows": [1, 2, 4]}), H200, "bounds changed from {'rows': [1, 2, 8]} to {'rows': [1, 2, 4]}"),
        (replace(RECIPE, options=Options(refit=True)), H200, "options changed"),
        (replace(RECIPE, precision="fp32"), H200, "precision changed from fp16 to fp32"),
        (RECIPE, replace(H200, tensorrt="10.13.3.9"), "TensorRT changed from 11.4.0.106 to 10.13.3.9"),
        (RECIPE, replace(H200, gpu="NVIDIA H100 80GB HBM3"), "GPU changed from NVIDIA H200 to NVIDIA H100"),
    ],
)
def test_each_change_is_a_reason_to_build_and_is_told(folder, recipe, machine, words):
    (reason,) = reasons_to_build(folder, recipe, machine)
    assert words in reason


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": 0}', '{"format": 1, "recipe": {}}', '{"format": 1, "recipe": 3}']
)
def test_a_record_that_cannot_be_read_means_no_plan(folder, text):
    (folder / RECORD).write_text(text)
    assert read_record(folder) is None
    assert reasons_to_build(folder, RECIPE, H200) == ["there is no plan yet"]
    with pytest.raises(EngineError, match=r"expected model.plan.json beside it"):
        check_plan(folder)


def test_an_absent_and_a_truncated_plan(folder, tmp_path_factory):
    with pytest.raises(EngineError, match=r"expected .*model.plan; build it here with `python -m export engine`"):
        check_plan(tmp_path_factory.mktemp("empty"))
    (folder / PLAN_FILE).write_bytes(b"native")
    assert reasons_to_build(folder, RECIPE, H200) == ["model.plan is incomplete"]
    with pytest.raises(EngineError, match="expected 11 bytes, got 6"):
        check_plan(folder)


def test_a_changed_plan_of_the_same_size_is_found_when_it_is_read_whole(folder):
    (folder / PLAN_FILE).write_bytes(b"native CODE")
    check_plan(folder)
    with pytest.raises(EngineError, match="SHA-256 is not the one"):
        check_plan(folder, whole=True)


def test_a_plan_loads_where_it_was_built(folder):
    assert check_plan(folder, replace(H200, cuda_driver="13.3"), for_triton=True, whole=True) == read_record(folder)


@pytest.mark.parametrize(
    ("hardware", "machine", "words"),
    [
        ("none", replace(H200, tensorrt="11.3.0.99"), "built by TensorRT 11.4.0.106, here is 11.3.0.99"),
        ("none", replace(H200, gpu="NVIDIA H100 80GB HBM3"), "built on a NVIDIA H200, here is a NVIDIA H100"),
        (
            "none",
            Machine(H200.tensorrt, "NVIDIA A100", "8.0", "13.0"),
            "capability 9.0 (NVIDIA H200), here is 8.0 (NVIDIA A100)",
        ),
        ("same-compute-capability", replace(H200, gpu="NVIDIA H100 80GB HBM3"), None),
        ("same-compute-capability", Machine(H200.tensorrt, "NVIDIA A100", "8.0", "13.0"), "capability 9.0"),
        ("ampere-plus", Machine(H200.tensorrt, "NVIDIA A100", "8.0", "13.0"), None),
        ("ampere-plus", Machine(H200.tensorrt, "Tesla T4", "7.5", "13.0"), "for Ampere and later, here is a Tesla T4"),
        ("ampere-plus", replace(H200, tensorrt="10.16.1.11"), "TensorRT"),
    ],
)
def test_another_gpu_or_version_is_refused_in_words(folder, hardware, machine, words):
    rewrite(folder, recipe=replace(RECIPE, options=Options(hardware=hardware)))
    if words is None:
        assert incompatibility(read_record(folder), machine) is None
        check_plan(folder, machine)
        return
    with pytest.raises(EngineError) as caught:
        check_plan(folder, machine)
    assert words in str(caught.value) and str(folder / PLAN_FILE) in str(caught.value) and "export engine" in str(caught.value)


@pytest.mark.parametrize("options", [Options(stripped=True), Options(weight_streaming=True)])
def test_a_plan_that_triton_cannot_serve_is_refused_before_it_tries(folder, options):
    rewrite(folder, recipe=replace(RECIPE, options=options))
    check_plan(folder, H200)
    with pytest.raises(EngineError, match="neither refits a plan nor sets a streaming budget"):
        check_plan(folder, H200, for_triton=True)


def test_the_digests_cover_the_graph_and_its_weights(tmp_path):
    with pytest.raises(EngineError, match=r"expected .*model.onnx; make it with `python -m export onnx`"):
        onnx_digests(tmp_path)
    for name in ("model.onnx", "model.onnx.data", "metadata.json", PLAN_FILE):
        (tmp_path / name).write_text(name)
    assert list(onnx_digests(tmp_path)) == ["model.onnx", "model.onnx.data"]
