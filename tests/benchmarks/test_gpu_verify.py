"""What a machine with a GPU will be asked to do, and what is said of it, without one."""

import json

import pytest

from benchmarks.__main__ import main
from benchmarks.gpu import small_card, ways
from benchmarks.gpu.report_file import file_name, outcome, parts
from benchmarks.gpu.verify import cases, failures, shown
from benchmarks.measure.host_memory import model_of
from benchmarks.memory.vram import totals
from export.onnx.errors import ParityError
from faceclip_serving.contract.sdxl import SDXL, TINY_SDXL
from faceclip_serving.contract.signatures import DENOISER, FACE_ENCODER, TEXT_ENCODER, VAE_DECODER
from faceclip_serving.contract.tensors import Range

SIZES = [(1024, 1024), (1152, 864)]


def test_every_size_meets_every_batch_where_a_component_has_a_size():
    found = cases(SDXL, DENOISER, SIZES, [1, 8])
    assert [tuple(case.values()) for case in found] == [(1, 128, 128), (8, 128, 128), (1, 144, 108), (8, 144, 108)]
    assert list(found[0]) == ["rows", "latent_height", "latent_width"]
    assert cases(SDXL, VAE_DECODER, SIZES, [2])[0] == {"images": 2, "latent_height": 128, "latent_width": 128}


def test_a_component_without_a_size_meets_each_batch_once():
    assert cases(SDXL, FACE_ENCODER, SIZES, [1, 2]) == [{"faces": 1}, {"faces": 2}]
    assert cases(SDXL, TEXT_ENCODER, SIZES, [1, 2]) == [{"rows": 1, "faces": 1}, {"rows": 2, "faces": 1}]


def test_one_plan_takes_all_cases_and_is_best_at_the_first():
    limits = ways.case_bounds(tuple(cases(SDXL, DENOISER, SIZES, [2, 1, 4])))
    assert limits == {"rows": Range(1, 2, 4), "latent_height": Range(128, 128, 144), "latent_width": Range(108, 128, 128)}


def measured(error=1e-3, **case):
    return {"cases": [{"sizes": {"rows": 1}, "median_s": 0.002, "gpu_peak_bytes": None, "error_of_largest": error, **case}]}


def test_a_graph_beyond_its_tolerance_and_a_way_that_ended_are_failures():
    found = {
        "denoiser": {
            "tolerance": 1e-2,
            "torch_eager": measured(error=0.5),
            "onnxruntime": measured(error=0.02),
            "tensorrt": {"error": "ended with code 1: no room"},
        }
    }
    wrong = failures(found, {"limit_bytes": 1, "onnxruntime 64x64": {"error": "late"}})
    assert len(wrong) == 3
    assert "onnxruntime 64x64: late" in wrong[0]
    assert "error 0.02, tolerance 0.01" in wrong[1]
    assert wrong[2] == "denoiser by tensorrt: ended with code 1: no room"


def test_an_error_that_is_no_number_is_a_failure():
    found = {"denoiser": {"tolerance": 1e-2, "onnxruntime": measured(error=float("nan"))}}
    assert len(failures(found, {})) == 1


def test_a_case_that_found_no_memory_is_shown_and_no_failure():
    found = {"denoiser": {"tolerance": 1e-2, "onnxruntime": {"cases": [{"sizes": {"rows": 8}, "error": "out of memory"}]}}}
    assert failures(found, {}) == []
    assert shown(found).splitlines()[1].split() == ["denoiser", "rows=8:", "onnxruntime", "–", "–", "–", "out", "of", "memory"]


def test_without_a_gpu_it_says_so_counts_and_ends_well(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.delenv("FACECLIP_SAVE_RESULTS", raising=False)
    assert main(["gpu-verify", "--size", "1024x1024", "--batch", "1"]) == 0
    printed = capsys.readouterr()
    assert "no GPU here" in printed.err
    document = json.loads(printed.out.splitlines()[-1])
    assert document["gpu"] is False and document["components"] == {} and document["failures"] == []
    assert document["forecasts"]["8gb"]["fits"] is True
    (denoiser,) = document["counted"]["denoiser"]
    assert denoiser["flops"] / 1e12 == pytest.approx(6.76, rel=0.01)
    assert document["engine_shapes"]["8gb"]["denoiser"]["rows"] == [1, 2, 2]


def test_ways_agree_and_the_reference_comes_first(tiny_repository_graphs, tmp_path):
    """The whole path of one component on the CPU, in this process: torch's outputs kept, the graph's compared with them."""

    def job(way):
        folder, case = str(tiny_repository_graphs / FACE_ENCODER), ({"faces": 2},)
        return ways.WayTrial(TINY_SDXL.name, FACE_ENCODER, way, folder, str(tmp_path), case, 1, "cpu")

    assert ways.run_here(job("onnxruntime"))["cases"][0]["error_of_largest"] is None
    ways.run_here(job("torch_fp32"))
    (case,) = ways.run_here(job("onnxruntime"))["cases"]
    assert case["error_of_largest"] <= 5e-5 and case["sizes"] == {"faces": 2}
    assert case["median_s"] >= case["fastest_s"] > 0


def test_a_case_that_fails_leaves_the_others(tiny_repository_graphs, tmp_path, monkeypatch):
    def none(*_):
        raise ParityError("too small\na card")

    monkeypatch.setitem(ways._OPEN, "onnxruntime", lambda *_: none)
    job = ways.WayTrial(TINY_SDXL.name, FACE_ENCODER, "onnxruntime", "", str(tmp_path), ({"faces": 1}, {"faces": 2}), 1, "cpu")
    assert [case["error"] for case in ways.run_here(job)["cases"]] == ["ParityError: too small"] * 2


def test_a_picture_on_a_small_card_is_decoded_in_tiles(tiny_repository_graphs):
    job = small_card.SmallCardTrial(TINY_SDXL.name, "8gb", "onnxruntime", str(tiny_repository_graphs), 128, 64, 1, "cpu")
    found = small_card.run_here(job)
    assert found["image"] == [1, 3, 128, 64] and found["finite"] is True and len(found["step_s"]) == 1


# ------------------------------------------------------------------------------------------------- the report to share
def test_a_report_has_every_part_with_its_placement_and_weights(tmp_path):
    found = parts("sdxl", "8gb", tmp_path, 20, ["compare"])
    assert list(found) == ["forecast", "vram", "latency"]
    assert found["forecast"][-3:] == ["--placement", "8gb", "--json"]
    assert found["latency"][2:] == [
        "--variant", "sdxl", "--placement", "8gb", "--checkpoint", str(tmp_path), "--runs", "20",
    ]  # fmt: skip


def test_a_part_that_failed_keeps_its_reason_and_its_document():
    assert outcome(0, 'words\n{"a": 1}\n', "") == {"a": 1}
    assert outcome(1, '{"a": 1}\n', "first\nlast\n\n") == {"a": 1, "error": "ended with code 1: last"}
    assert outcome(-9, "", "") == {"error": "ended with code -9: no message"}


def test_a_report_is_called_after_the_card():
    card = [{"name": "NVIDIA GeForce RTX 3070"}]
    assert file_name("sdxl", "8gb", card) == "report-sdxl-8gb-nvidia-geforce-rtx-3070.json"
    assert file_name("tiny-sdxl", "cpu", []) == "report-tiny-sdxl-cpu-cpu.json"


# ----------------------------------------------------------------------------------------------------- served memory
def test_a_process_is_called_after_its_model():
    stub = ["/opt/triton_python_backend_stub", "/models/sampler/1/model.py", "prefix", "1048576"]
    assert model_of(stub) == "sampler"
    assert model_of(["python3", "-c", "pass"]) == "python3"
    assert model_of([]) == "unknown"


def test_peaks_of_processes_are_added():
    idle = {"tritonserver": {"now": 1}, "sampler": {"now": 10}}
    after = {"tritonserver": {"now": 2, "peak": 5}, "sampler": {"now": 20, "peak": 50}}
    assert totals(idle, after) == {"idle_bytes": 11, "peak_bytes": 55}
