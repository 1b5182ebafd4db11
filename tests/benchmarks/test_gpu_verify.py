"""What a machine with a GPU will be asked to do, and what is said of it, without one."""

import argparse
import json
import re
import shutil
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.gpu import trial, verify, ways
from benchmarks.gpu.parts import BROKEN, HELD, NO_GPU, NOT_RUN, REASON, Parts, without_folders
from benchmarks.gpu.report_file import file_name, outcome, parts
from benchmarks.measure.host_memory import model_of
from benchmarks.memory.vram import totals
from export.engine import machine
from export.engine.build import plan_placements
from export.engine.errors import EngineError
from export.onnx import export as to_onnx
from export.onnx.errors import ParityError
from export.onnx.wanted import Export
from export.paths import WEIGHTS
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.names import DENOISER, FACE_ENCODER, VAE_DECODER
from faceclip_serving.contract.placements import PLAN_FILE, TENSORRT, TRT_RTX, placements
from faceclip_serving.contract.variants.flux import TINY_FLUX
from faceclip_serving.contract.variants.sdxl import NANO, SDXL, TINY_SDXL
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.models import tensorrt_package
from faceclip_serving.models.tensorrt_package import Card

RTX_3070 = Card("NVIDIA GeForce RTX 3070", "8.6", "580.95.05", 8 * 2**30, 7 * 2**30)
H100 = Card("NVIDIA H100 80GB HBM3", "9.0", "580.95.05", 81559 * 2**20, 81000 * 2**20)
with_rtx = pytest.mark.skipif(
    find_spec(TRT_RTX.package) is None or find_spec("polygraphy") is None,
    reason=f"{TRT_RTX.package} or polygraphy is not on this platform: engines cannot be compiled here",
)
without_driver = pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a driver here")


# ----------------------------------------------------------------------------------------------------------------- choices
def arguments(*words):
    parser = argparse.ArgumentParser()
    verify.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
@pytest.mark.parametrize("capability", ["7.5", "8.6", "8.9", "12.0"])
def test_a_card_gets_the_placement_that_uses_most_of_it_and_that_it_computes(variant, capability, monkeypatch):
    """The choice is one that `export machine` finds ready, and none that uses more of the card is."""
    table = {name: each for name, each in placements(variant).items() if name in plan_placements()}
    for gib in (4, 6, 8, 12, 16, 24, 80):
        card = replace(RTX_3070, capability=capability, total_bytes=gib * 2**30, free_bytes=gib * 2**30)
        monkeypatch.setattr(machine, "find_card", lambda gpu, card=card: card)
        found = {
            name: not [each for each in machine.checks(placement.on(TRT_RTX.name)) if each.problem]
            for name, placement in table.items()
        }
        ready = [name for name, fits in found.items() if fits]
        if ready:
            assert table[verify.best_placement(variant, card)].gpu_bytes == max(table[name].gpu_bytes for name in ready)
            assert verify.best_placement(variant, card) in ready
        else:
            with pytest.raises(EngineError, match=f"placement: none of '{variant.name}' is for this card"):
                verify.best_placement(variant, card)
    assert verify.WITHOUT_CARD in table and verify.best_placement(variant, None) == verify.WITHOUT_CARD


@pytest.mark.parametrize(
    ("card", "packages", "expected"),
    [
        (RTX_3070, {"tensorrt", "tensorrt_rtx"}, TRT_RTX),
        (RTX_3070, {"tensorrt"}, TENSORRT),
        (H100, {"tensorrt", "tensorrt_rtx"}, TENSORRT),
        (H100, {"tensorrt_rtx"}, TRT_RTX),
        (None, {"tensorrt", "tensorrt_rtx"}, TRT_RTX),
    ],
)
def test_plans_are_built_by_what_fits_the_card_and_is_installed(card, packages, expected, monkeypatch):
    for module in (verify, tensorrt_package):
        monkeypatch.setattr(module, "find_spec", lambda name: name if name in packages else None)
    assert verify.runtime_for(card) is expected


def test_what_is_asked_for_goes_before_the_card(monkeypatch):
    monkeypatch.setattr(verify, "find_spec", lambda name: name)
    assert verify.chosen_placement(arguments("--variant", "sdxl"), RTX_3070).label == "8gb"
    assert verify.chosen_placement(arguments("--variant", "sdxl"), H100).label == "datacenter"
    asked = arguments("--variant", "sdxl", "--placement", "12gb", "--runtime", "tensorrt")
    assert verify.chosen_placement(asked, RTX_3070).label == "12gb-tensorrt"
    assert verify.chosen_placement(arguments("--placement", "datacenter", "--sm", "89"), H100).label == "datacenter-trt-rtx"


def test_without_a_card_plans_are_for_all_that_take_their_precision():
    assert verify.capabilities(placements(SDXL)["8gb"], None) == (75, 86, 89, 120)
    assert verify.capabilities(placements(TINY_FLUX)["16gb"], None) == (89, 120)
    assert verify.capabilities(placements(SDXL)["6gb-int8w"], None) == (86, 89, 120)
    assert verify.capabilities(placements(SDXL)["8gb"], RTX_3070) == ()


# ------------------------------------------------------------------------------------------------------------------- parts
def fail(error):
    raise error


def test_a_part_holds_or_says_why_not_and_the_others_go_on(capsys):
    parts = Parts()
    assert parts.do("good", "b", lambda: {"x": 1.23456, "rows": [1]})
    assert not parts.do("refused", "b", lambda: fail(EngineError("no room")))
    assert not parts.do("killed", "b", lambda: {"error": "ended with code 1: words"})
    assert not parts.do("loose", "b", lambda: {"peak": 9, REASON: "9 of 8"})
    assert not parts.do("absent", "b", lambda: fail(AssertionError), NO_GPU)
    assert [(part.name, part.outcome, part.why) for part in parts.found] == [
        ("good", HELD, ""),
        ("refused", BROKEN, "no room"),
        ("killed", BROKEN, "ended with code 1: words"),
        ("loose", BROKEN, "9 of 8"),
        ("absent", NOT_RUN, "no GPU"),
    ]
    assert parts.failed == ["refused", "killed", "loose"] and parts.found[3].figures == {"peak": 9}
    text = parts.text()
    assert (
        text.splitlines()[-1] == "1 held, 3 broken, 1 not run" and "good: x 1.235" in text and "not run  absent: no GPU" in text
    )
    assert "held     good" in capsys.readouterr().err


def test_a_fault_of_the_program_is_not_a_broken_bound():
    with pytest.raises(ZeroDivisionError):
        Parts().do("name", "bound", lambda: {"x": 1 // 0})


HERE, HOME = Path.cwd(), Path.home()


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        (f"{HERE}/build/x: no", "build/x: no"),
        (f"{HOME}/clients/acme/model.onnx: expected a graph", "model.onnx: expected a graph"),
        (f"no room in {HOME}", "no room in ~"),
        ("error: /srv/alice/weights/unet.safetensors, line 3", "error: unet.safetensors, line 3"),
        (
            "[Errno 2] No such file or directory: '/srv/Alice B/my model/unet.onnx'",
            "[Errno 2] No such file or directory: 'unet.onnx'",
        ),
        ("--checkpoint=/srv/alice/sdxl --lora /srv/alice/a.safetensors:0.8", "--checkpoint=sdxl --lora a.safetensors:0.8"),
        ("file:///srv/alice/a.onnx (/tmp/tmpab12/model.plan)", "a.onnx (model.plan)"),
        ("/mnt/Alice B/sdxl/unet.onnx and ../alice/onnx/fp16", "sdxl/unet.onnx and onnx/fp16"),
        ("FP16/FP8 at 3 GB/s, https://example.org/a/b, 1/2", "FP16/FP8 at 3 GB/s, https://example.org/a/b, 1/2"),
    ],
)
def test_what_is_shared_names_no_folder(text, shared):
    known = [Path("/mnt/Alice B/sdxl"), Path("../alice/onnx")]
    assert without_folders(text, known) == shared
    parts = Parts(known)
    parts.do("a part", "b", lambda: {"checks": [text], "fp16": {"error": text, text: 1}, REASON: text})
    told = [*parts.found[0].figures["checks"], parts.found[0].figures["fp16"]["error"], parts.found[0].why]
    assert told == [shared] * 3 and parts.found[0].figures["fp16"][shared] == 1
    assert shared in parts.text() and (text == shared or text not in json.dumps(parts.document()))


@pytest.fixture
def exports(tmp_path, monkeypatch):
    """Notes what would be exported; `put` writes metadata of a component as if it had been."""
    wanted = []
    monkeypatch.setattr(to_onnx, "export_components", lambda exports, root: wanted.extend(exports) or [])

    def put(export, **changes):
        folder = tmp_path / export.precision / export.component
        folder.mkdir(parents=True, exist_ok=True)
        weights, loras, identity = to_onnx._made_from(to_onnx._settled(export))
        source = {"source": "seeded"} if weights is None else {"source": "checkpoint", "file": weights.name, "given": True}
        document = {"identity": identity, "files": {}, "weights": source, "loras": loras, **changes}
        (folder / "metadata.json").write_text(json.dumps(document))

    return wanted, put


def test_the_export_is_kept_only_if_it_is_the_one_that_would_be_made(exports, tmp_path):
    wanted, put = exports
    eight, only = placements(TINY_SDXL)["8gb"], [VAE_DECODER]
    ask = partial(verify.export_missing, TINY_SDXL, eight, only, tmp_path)
    assert ask(None)["made"] == only
    stand_in = Export(TINY_SDXL, VAE_DECODER, "fp16")
    put(stand_in)
    found = ask(None)
    assert (found["made"], found["there"], found["weights"]) == ([], only, {VAE_DECODER: "seeded"})
    put(stand_in, identity="of older code")
    assert ask(None)["made"] == only
    wanted.clear()
    put(stand_in)
    with pytest.raises(UserError, match="nowhere"):
        ask(tmp_path / "nowhere")
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(WEIGHTS / NANO.name, checkpoint, copy_function=shutil.copy)  # of another time
    put(Export(NANO, VAE_DECODER, "fp16"))
    ask = partial(verify.export_missing, NANO, placements(NANO)["8gb"], only, tmp_path)
    assert ask(checkpoint)["made"] == only and wanted[-1].checkpoint == checkpoint


def test_weights_and_loras_that_were_chosen_stay_where_none_are_named(exports, tmp_path):
    wanted, put = exports
    for variant in (SDXL, TINY_SDXL):
        ask = partial(verify.export_missing, variant, placements(variant)["8gb"], [DENOISER], tmp_path, None)
        for chosen in (
            {"weights": {"source": "checkpoint", "file": "unet.safetensors"}},
            {"loras": [{"file": "style.safetensors", "scale": 0.8}]},
        ):
            put(
                Export(variant, DENOISER, "fp16", seeded=True),
                **{"weights": {"source": "checkpoint", "file": "u", "given": True}, **chosen},
            )
            assert ask()["there"] == [DENOISER] and not wanted


JOB = trial.Trial("start", "tiny-sdxl", "8gb", "", "", DENOISER)


@pytest.mark.parametrize(
    ("found", "keeps", "why"),
    [
        ({"finite": True, "runtime_cache_bytes": 5}, True, ""),
        ({"finite": True, "runtime_cache_bytes": 0}, False, ""),
        ({"finite": True, "runtime_cache_bytes": 0}, True, "no runtime cache was kept"),
        ({"finite": False, "runtime_cache_bytes": 5}, True, "an output is not finite"),
    ],
)
def test_a_start_must_be_finite_and_leave_a_runtime_cache(found, keeps, why, monkeypatch):
    monkeypatch.setattr(verify, "run_module", lambda *_: found)
    assert verify.started(JOB, keeps)[REASON] == why


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"finite": True, "peak_bytes": 8}, ""),
        ({"finite": True, "peak_bytes": 9}, "9 bytes were held, 8 may be used"),
        ({"finite": False, "peak_bytes": 8}, "the picture is not finite"),
        ({"finite": True, "peak_bytes": None}, "NVML does not say"),
        ({"error": "ended"}, ""),
    ],
)
def test_everything_must_fit_the_memory_of_the_placement(found, why, monkeypatch):
    monkeypatch.setattr(verify, "run_module", lambda *_: found)
    assert verify.on_card(JOB, 8, RTX_3070)[REASON].startswith(why) and (why or not verify.on_card(JOB, 8, RTX_3070)[REASON])


# ----------------------------------------------------------------------------------------------------------------- command
@with_rtx
@without_driver
def test_without_a_card_it_builds_and_says_what_was_not_run(tmp_path, capsys, tiny_as_fp16):
    report = tmp_path / "report.json"
    command = ["gpu-verify", "--variant", "tiny-sdxl", "--placement", "8gb", "--sm", "89,120", "--component", VAE_DECODER]
    assert main([*command, "--components", str(tiny_as_fp16), "--output", str(report)]) == 0
    document = json.loads(report.read_text())
    assert document == json.loads(capsys.readouterr().out.splitlines()[-1])
    parts = {part["name"]: part for part in document["parts"]}
    ran = {name: part["outcome"] for name, part in parts.items() if part["outcome"] != NOT_RUN}
    assert ran == {"forecast": HELD, "export": HELD, "build vae_decoder": HELD}
    assert {part["why"] for name, part in parts.items() if name not in ran} == {NO_GPU} and "agreement vae_decoder" in parts
    built = parts["build vae_decoder"]["figures"]
    assert built["compiler"].startswith("tensorrt-rtx ") and built["activation_bytes"] > 0
    assert (tiny_as_fp16 / "fp16" / VAE_DECODER / PLAN_FILE).stat().st_size == pytest.approx(1e6 * built["plan_mb"], abs=1e3)
    assert document["card"] is None and document["failed"] == [] and document["versions"]["tensorrt-rtx-cu13"]
    text = report.with_suffix(".txt").read_text()
    assert "not run  picture: no GPU" in text and "3 held, 0 broken, 6 not run" in text and str(tmp_path) not in text


@with_rtx
@without_driver
def test_a_rehearsal_carries_out_every_part_but_the_card(tmp_path, tiny_as_fp16):
    report = tmp_path / "report.json"
    command = ["gpu-verify", "--variant", "tiny-sdxl", "--placement", "8gb", "--sm", "89", "--rehearse", "--repeats", "1"]
    assert main([*command, "--steps", "1", "--components", str(tiny_as_fp16), "--output", str(report)]) == 0
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
    def two_parts(_args, _placement, _card, parts):
        parts.do("first", "b", lambda: {"x": 1})
        assert json.loads(report.read_text())["parts"][0]["name"] == "first", "written after each part"
        parts.do("second", "b", lambda: fail(end))

    report = tmp_path / "report.json"
    monkeypatch.setattr(verify, "carry_out", two_parts)
    command = ["gpu-verify", "--placement", "8gb", "--output", str(report)]
    if isinstance(end, KeyboardInterrupt):
        assert main(command) == 130
    else:
        with pytest.raises(RuntimeError):
            main(command)
    document = json.loads(report.read_text())
    assert [part["name"] for part in document["parts"]] == ["first"] and document["complete"] is False
    text = report.with_suffix(".txt").read_text()
    assert "ended before its last part" in text and "held     first: x 1" in text
    assert f"the report is {report}" in capsys.readouterr().err


def test_a_card_that_does_not_give_its_memory_is_a_broken_bound(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (10**10, 10**10))
    monkeypatch.setattr(torch, "empty", lambda *_, **__: fail(torch.OutOfMemoryError("CUDA out of memory")))
    parts = Parts()
    assert not parts.do("all on the card", "b", lambda: verify.on_card(JOB, 8 * 10**9, RTX_3070))
    assert parts.failed == ["all on the card"] and "1936000000 bytes of the card could not be occupied" in parts.found[0].why


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
    assert file_name("report", "sdxl", "8gb", RTX_3070.name) == "report-sdxl-8gb-nvidia-geforce-rtx-3070.json"
    assert file_name("gpu-verify", "nano", "16gb", "no card") == "gpu-verify-nano-16gb-no-card.json"


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
