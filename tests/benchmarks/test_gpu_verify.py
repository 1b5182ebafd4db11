"""What a machine with a GPU will be asked to do, carried out as far as that goes without one."""

import json
import re
import shutil
import signal
from importlib.util import find_spec

import pytest

from benchmarks.__main__ import main
from benchmarks.gpu import verify, ways
from benchmarks.gpu.parts import HELD, NO_GPU, NOT_RUN
from export.onnx.errors import ParityError
from faceclip_serving.contract.names import DENOISER, FACE_ENCODER, VAE_DECODER
from faceclip_serving.contract.placements import PLAN_FILE, TRT_RTX
from faceclip_serving.contract.variants.sdxl import TINY_SDXL

with_rtx = pytest.mark.skipif(
    find_spec(TRT_RTX.package) is None or find_spec("polygraphy") is None,
    reason=f"{TRT_RTX.package} or polygraphy is not on this platform: engines cannot be compiled here",
)
without_driver = pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a driver here")


@with_rtx
@without_driver
def test_without_a_card_it_builds_and_says_what_was_not_run(tmp_path, capsys, tiny_with_plans):
    report = tmp_path / "report.json"
    command = ["gpu-verify", "--variant", "tiny-sdxl", "--placement", "6gb", "--sm", "89,120", "--component", VAE_DECODER]
    assert main([*command, "--components", str(tiny_with_plans), "--output", str(report)]) == 0
    document = json.loads(report.read_text())
    assert document == json.loads(capsys.readouterr().out.splitlines()[-1])
    parts = {part["name"]: part for part in document["parts"]}
    ran = {name: part["outcome"] for name, part in parts.items() if part["outcome"] != NOT_RUN}
    assert ran == {"forecast": HELD, "export": HELD, "build vae_decoder": HELD}
    assert {part["why"] for name, part in parts.items() if name not in ran} == {NO_GPU} and "agreement vae_decoder" in parts
    built = parts["build vae_decoder"]["figures"]
    assert built["compiler"].startswith("tensorrt-rtx ") and built["activation_bytes"] > 0
    assert (tiny_with_plans / "fp16" / VAE_DECODER / PLAN_FILE).stat().st_size == pytest.approx(1e6 * built["plan_mb"], abs=1e3)
    assert document["card"] is None and document["failed"] == [] and document["versions"]["tensorrt-rtx-cu13"]
    text = report.with_suffix(".txt").read_text()
    assert "not run  picture: no GPU" in text and "3 held, 0 broken, 6 not run" in text and str(tmp_path) not in text


@pytest.mark.proof
@with_rtx
@without_driver
def test_a_rehearsal_carries_out_every_part_but_the_card(tmp_path, tiny_with_plans):
    report = tmp_path / "report.json"
    command = ["gpu-verify", "--variant", "tiny-sdxl", "--placement", "6gb", "--sm", "89", "--rehearse", "--repeats", "1"]
    assert main([*command, "--steps", "1", "--components", str(tiny_with_plans), "--output", str(report)]) == 0
    document = json.loads(report.read_text())
    parts = {part["name"]: part for part in document["parts"]}
    assert {name for name, part in parts.items() if part["outcome"] != HELD} == {"machine"} and document["rehearsal"]
    assert not re.search(
        "cache|card|GB", json.dumps([part["bound"] for name, part in parts.items() if name != "machine" and name != "forecast"])
    )
    assert (
        parts["cold start denoiser"]["figures"]["runtime_cache_bytes"]
        is parts["all on the card"]["figures"]["peak_bytes"]
        is None
    )
    assert "None" not in report.with_suffix(".txt").read_text()
    assert 0 <= parts["agreement denoiser"]["figures"]["error_of_largest"] <= 1e-2
    assert parts["cold start denoiser"]["figures"]["first_s"] > 0 and parts["picture"]["figures"]["steps"] == 1
    whole = parts["all on the card"]["figures"]
    assert whole["loaded"] == [DENOISER, VAE_DECODER] and (whole["height"], whole["width"]) == (192, 128)


@with_rtx
@without_driver
def test_a_broken_bound_is_told_by_the_exit_code_and_the_other_parts_go_on(tmp_path, tiny_as_fp16, capsys):
    report = tmp_path / "report.json"
    command = [
        "gpu-verify",
        "--variant",
        "tiny-sdxl",
        "--placement",
        "8gb",
        "--sm",
        "60",
        "--component",
        VAE_DECODER,
        "--rehearse",
    ]
    assert main([*command, "--components", str(tiny_as_fp16), "--output", str(report)]) == 1
    document = json.loads(report.read_text())
    outcomes = {part["name"]: (part["outcome"], part["why"]) for part in document["parts"]}
    assert document["failed"] == ["build vae_decoder"] and "compiles for 75" in outcomes["build vae_decoder"][1]
    assert outcomes["agreement vae_decoder"] == (NOT_RUN, "its plan was not built")
    assert outcomes["picture"] == (NOT_RUN, "no plan of denoiser, vae_decoder")
    assert "broken   build vae_decoder: sm: " in capsys.readouterr().err


@without_driver
def test_a_rehearsal_and_what_needs_no_card_have_a_report_each(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(verify, "carry_out", lambda *_: None)
    monkeypatch.setattr(verify, "FOLDER", tmp_path)
    for more in ([], ["--rehearse"]):
        assert main(["gpu-verify", "--placement", "8gb", *more]) == 0
    names = {path.name for path in tmp_path.glob("*.json")}
    assert names == {"gpu-verify-nano-8gb-no-card.json", "gpu-verify-nano-8gb-rehearsal.json"}


@without_driver
@pytest.mark.parametrize("end", [KeyboardInterrupt(), RuntimeError("CUDA out of memory")])
def test_what_was_found_is_in_the_report_whatever_ends_the_command(tmp_path, monkeypatch, capsys, end):
    def raises(error):
        raise error

    def two_parts(_args, _placement, _card, parts):
        parts.do("first", "b", lambda: {"x": 1})
        assert json.loads(report.read_text())["parts"][0]["name"] == "first", "written after each part"
        parts.do("second", "b", lambda: raises(end))

    report = tmp_path / "report.json"
    monkeypatch.setattr(verify, "carry_out", two_parts)
    command = ["gpu-verify", "--placement", "8gb", "--output", str(report)]
    if isinstance(end, KeyboardInterrupt):
        handler = signal.getsignal(signal.SIGINT)
        assert main(command) == 130
        signal.signal(signal.SIGINT, handler)  # this process goes on
    else:
        with pytest.raises(RuntimeError):
            main(command)
    document = json.loads(report.read_text())
    assert [part["name"] for part in document["parts"]] == ["first"] and document["complete"] is False
    text = report.with_suffix(".txt").read_text()
    assert "ended before its last part" in text and "held     first: x 1" in text
    assert f"the report is {report}" in capsys.readouterr().err


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
