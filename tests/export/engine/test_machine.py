"""Whether a machine can serve a placement. There is no card here, so what its driver would say comes from a script in its place."""

import json
import shutil
import sys
from importlib.util import find_spec

import pytest

from benchmarks.gpu.verify import capabilities
from export.__main__ import main
from export.engine.machine import SERIES
from export.paths import ROOT
from faceclip_serving.contract.placements import CUDA_CURE, TRT_RTX, placements
from faceclip_serving.contract.variants.table import VARIANTS

RTX_4060 = "NVIDIA GeForce RTX 4060, 8.9, 580.95.05, 8188, 7900"
with_rtx = pytest.mark.skipif(find_spec(TRT_RTX.package) is None, reason=f"{TRT_RTX.package} is not on this platform")


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Puts a driver here that says a line."""

    def install(line: str) -> None:
        script = tmp_path / "nvidia-smi"
        script.write_text(f"#!{sys.executable}\nprint({line!r})\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return install


def asked(capsys, *arguments):
    code = main(["machine", *arguments])
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["ready"] == (code == 0)
    assert len(err.splitlines()) == len(document["checks"]), "a line each"
    return document, err


@pytest.mark.parametrize("arguments", [["--placement", "cpu"], ["--variant", "sdxl", "--placement", "8gb", "--emulate"]])
def test_what_runs_on_the_cpu_needs_no_card(capsys, arguments):
    document, told = asked(capsys, *arguments)
    assert document["ready"] and told == "ok  card: none is needed\n"


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a driver here")
def test_without_a_driver_one_line_says_so(capsys):
    document, told = asked(capsys, "--variant", "sdxl", "--placement", "8gb")
    assert not document["ready"] and "no  driver: none; no NVIDIA driver here" in told


@with_rtx
def test_a_card_as_it_must_be_is_ready(driver, capsys):
    driver(RTX_4060)
    document, told = asked(capsys, "--variant", "sdxl", "--placement", "8gb")
    assert document["ready"], told
    assert [each["what"] for each in document["checks"]] == ["tensorrt_rtx", "driver", "card", "memory"]
    assert "ok  driver: 580.95.05\nok  card: NVIDIA GeForce RTX 4060, compute capability 8.9\n" in told
    assert "ok  memory: 8.28 GB free of 8.59\n" in told


@with_rtx
@pytest.mark.parametrize(
    ("line", "variant", "placement", "words"),
    [
        ("NVIDIA GeForce RTX 4060, 8.9, 575.51.02, 8188, 7900", "sdxl", "8gb", "driver: 575.51.02; expected 580 or later"),
        ("NVIDIA GeForce GTX 1080, 6.1, 580.95.05, 8188, 7900", "sdxl", "8gb", "TensorRT for RTX runs on RTX 20 to 50"),
        (
            "NVIDIA H100, 9.0, 580.95.05, 81559, 81000",
            "sdxl",
            "8gb",
            "TensorRT for RTX runs on RTX 20 to 50; choose `--placement gpu-",
        ),
        ("NVIDIA A100, 8.0, 580.95.05, 81559, 81000", "sdxl", "8gb", "TensorRT for RTX runs on RTX 20 to 50"),
        (RTX_4060, "sdxl", "12gb", "the placement is for cards with 11.30 GB to use; choose a smaller one"),
        ("NVIDIA GeForce RTX 4060, 8.9, 580.95.05, 8188, 900", "sdxl", "8gb", "may use 7.50 GB; end what else is on the card"),
        ("NVIDIA GeForce RTX 3090, 8.6, 580.95.05, 24576, 24000", "flux", "24gb", "FP8 needs RTX 40 or later"),
        (
            "NVIDIA GeForce RTX 2070, 7.5, 580.95.05, 8192, 8000",
            "sdxl",
            "6gb-int8w",
            "INT8W needs RTX 30 or later; choose another placement",
        ),
        (
            "NVIDIA GeForce RTX 4060, [N/A], 580.95.05, 8188, 7900",
            "sdxl",
            "8gb",
            "expected one like 8.9, the driver says '[N/A]'",
        ),
        ("NVIDIA GeForce RTX 4060, 8.9, [N/A], 8188, 7900", "sdxl", "8gb", "driver: [N/A]; expected 580 or later"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(driver, capsys, line, variant, placement, words):
    driver(line)
    document, told = asked(capsys, "--variant", variant, "--placement", placement)
    assert not document["ready"] and words in told
    assert sum(bool(each["problem"]) for each in document["checks"]) == 1, told


@pytest.mark.proof
@with_rtx
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_card_that_is_ready_is_one_that_plans_of_the_placement_are_compiled_for(driver, capsys, variant):
    """Of the series, those that `gpu-verify` compiles for without a card, and no others."""
    for name in ("6gb", "6gb-int8w", "8gb", "12gb", "16gb", "24gb"):
        if name not in placements(VARIANTS[variant]):
            continue
        for sm in SERIES:
            driver(f"NVIDIA GeForce RTX, {sm // 10}.{sm % 10}, 580.95.05, 32768, 32000")
            document, told = asked(capsys, "--variant", variant, "--placement", name)
            assert document["ready"] == (sm in capabilities(placements(VARIANTS[variant])[name], None)), told


@with_rtx
def test_a_card_that_shares_the_hosts_memory_is_not_weighed(driver, capsys):
    driver("NVIDIA GB10, 12.1, 580.95.05, [N/A], [N/A]")
    document, _ = asked(capsys, "--variant", "sdxl", "--placement", "8gb")
    assert document["ready"] and [each["what"] for each in document["checks"]] == ["tensorrt_rtx", "driver", "card"]


@pytest.mark.parametrize("file", ["requirements-cuda.txt", "docs/serve.md", "docs/troubleshooting.md"])
def test_one_cure_for_cuda_is_told_everywhere_and_frees_the_shared_module_of_both_builds(file):
    assert CUDA_CURE in (ROOT / file).read_text(encoding="utf-8")
    assert "uninstall -y onnxruntime onnxruntime-gpu &&" in CUDA_CURE and CUDA_CURE.endswith("requirements-cuda.txt")
