"""A repository for ONNX Runtime on CUDA is refused where it is the build for CPUs, before a server is started over it."""

import json

import onnxruntime
import pytest

from export.__main__ import main
from export.engine.errors import EngineError
from export.engine.inspect import check_providers
from export.repository.render import render
from faceclip_serving.contract.names import SAMPLER, model_name
from faceclip_serving.contract.placements import CUDA_CURE, CUDA_PROVIDER, placements
from faceclip_serving.contract.variants.sdxl import TINY_SDXL

PLACEMENTS = placements(TINY_SDXL)
CPUS = ["CPUExecutionProvider"]


@pytest.fixture
def assembled(tmp_path):
    def make(placement, deployment="faceclip"):
        for role, text in render(TINY_SDXL, placement, deployment).items():
            folder = tmp_path / model_name(role, deployment)
            folder.mkdir()
            (folder / "config.pbtxt").write_text(text)
        return tmp_path

    return make


@pytest.mark.parametrize("name", PLACEMENTS)
@pytest.mark.parametrize("available", [CPUS, [CUDA_PROVIDER, *CPUS]], ids=["cpu", "cuda"])
def test_what_a_placement_runs_on_cuda_needs_the_build_for_it(assembled, monkeypatch, name, available):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    repository = assembled(PLACEMENTS[name])
    if name == "gpu-ort" and available == CPUS:
        with pytest.raises(EngineError, match=r"placement 'gpu-ort' runs them by CUDAExecutionProvider") as raised:
            check_providers(repository)
        assert CUDA_CURE in str(raised.value) and "--build-arg ONNXRUNTIME=cuda" in str(raised.value)
    else:
        check_providers(repository)


def test_every_deployment_is_looked_at(assembled, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: CPUS)
    assembled(PLACEMENTS["cpu"])
    with pytest.raises(EngineError, match="second_sampler"):
        check_providers(assembled(PLACEMENTS["gpu-ort"], "second"))


def test_an_emulated_placement_needs_no_card(assembled, monkeypatch, capsys):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: CPUS)
    repository = assembled(PLACEMENTS["gpu-ort"].emulate())
    assert main(["inspect", "--repository", str(repository)]) == 0
    assert json.loads(capsys.readouterr().out)["plans"] == []


def test_the_command_that_a_container_begins_with_refuses_it_in_one_line(assembled, monkeypatch, capsys):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: CPUS)
    assert main(["inspect", "--repository", str(assembled(PLACEMENTS["gpu-ort"]))]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and SAMPLER in line
