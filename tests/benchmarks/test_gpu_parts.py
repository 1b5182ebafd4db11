"""What is said of a machine with a GPU: parts that hold or say why not, without a folder's name, in a report to share."""

import json
from pathlib import Path

import pytest

from benchmarks.gpu import trial, verify
from benchmarks.gpu.parts import BROKEN, HELD, NO_GPU, NOT_RUN, REASON, Parts, without_folders
from benchmarks.gpu.report_file import file_name, outcome, parts
from benchmarks.measure.host_memory import model_of
from benchmarks.memory.vram import totals
from export.engine.errors import EngineError
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.models.tensorrt_package import Card

RTX_3070 = Card("NVIDIA GeForce RTX 3070", "8.6", "580.95.05", 8 * 2**30, 7 * 2**30)


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


def test_a_card_that_does_not_give_its_memory_is_a_broken_bound(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (10**10, 10**10))
    monkeypatch.setattr(torch, "empty", lambda *_, **__: fail(torch.OutOfMemoryError("CUDA out of memory")))
    parts = Parts()
    assert not parts.do("all on the card", "b", lambda: verify.on_card(JOB, 8 * 10**9, RTX_3070))
    assert parts.failed == ["all on the card"] and "1936000000 bytes of the card could not be occupied" in parts.found[0].why


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


def test_a_process_is_called_after_its_model():
    stub = ["/opt/triton_python_backend_stub", "/models/sampler/1/model.py", "prefix", "1048576"]
    assert model_of(stub) == "sampler"
    assert model_of(["python3", "-c", "pass"]) == "python3"
    assert model_of([]) == "unknown"


def test_peaks_of_processes_are_added():
    idle = {"tritonserver": {"now": 1}, "sampler": {"now": 10}}
    after = {"tritonserver": {"now": 2, "peak": 5}, "sampler": {"now": 20, "peak": 50}}
    assert totals(idle, after) == {"idle_bytes": 11, "peak_bytes": 55}
