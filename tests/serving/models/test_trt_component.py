"""A plan on a card, as far as that goes without one: packages, the card, the place of the runtime cache."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from faceclip_serving.contract.components import components
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.placements import RUNTIMES, TENSORRT, TRT_RTX, Execution
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.models.tensorrt_package import Card, PackageError, check_version, find_card, read_card, use
from faceclip_serving.models.trt_component import TrtComponent, cache_file

ROOT = Path(__file__).resolve().parents[3]
with_rtx = pytest.mark.skipif(
    find_spec(TRT_RTX.package) is None or find_spec("polygraphy") is None,
    reason=f"{TRT_RTX.package} or polygraphy is not on this platform",
)
without_driver = pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a driver here")


@pytest.mark.parametrize(("package", "found"), [("tensorrt", "10.11.0.33"), ("tensorrt", "8.6.1"), ("tensorrt_rtx", "1.6.0.1")])
def test_an_old_tensorrt_is_refused(package, found):
    with pytest.raises(PackageError, match=rf"{package}: expected \d+\.\d+ or later, found {found}: "):
        check_version(package, found)


@pytest.mark.parametrize(
    ("package", "found"), [("tensorrt", "10.12.0.36"), ("tensorrt", "11.4.0.106"), ("tensorrt_rtx", "1.7.1.116")]
)
def test_those_that_the_code_was_written_for_are_taken(package, found):
    check_version(package, found)


def test_every_runtime_of_plans_has_a_package_that_can_be_asked_for():
    for runtime in RUNTIMES.values():
        if runtime.package and find_spec(runtime.package) is None:
            with pytest.raises(PackageError, match=rf"the Python package '{runtime.package}' is not installed: "):
                use(runtime)


def test_nvidia_smis_line_is_a_card_and_others_are_refused():
    line = "NVIDIA GeForce RTX 4090, 8.9, 580.95.05, 24564, 23028\n"
    assert read_card(line) == Card("NVIDIA GeForce RTX 4090", "8.9", "580.95.05", 24564 * 2**20, 23028 * 2**20)
    assert read_card("NVIDIA GB10, 12.1, 580.95.05, [N/A], [N/A]\n").free_bytes is None
    for line in ("", "\n", "No devices were found\n"):
        with pytest.raises(PackageError, match="expected name, compute capability, driver and memory of one card"):
            read_card(line)


def test_a_card_that_is_hidden_is_not_found(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(PackageError, match="GPU 1: CUDA_VISIBLE_DEVICES leaves 1 here"):
        find_card(1)


def test_a_runtime_cache_belongs_to_one_card_model_and_one_version(tmp_path):
    plan = tmp_path / "model.plan"
    names = {
        cache_file(plan, card, version).name
        for card in ("NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 3060")
        for version in ("1.7.1.116", "1.8.0.1")
    }
    assert len(names) == 4 and "model.plan.NVIDIA-GeForce-RTX-4090-1.7.1.116.cache" in names


@with_rtx
def test_a_process_has_one_tensorrt_and_polygraphy_drives_the_chosen_one():
    """In a process of its own: the choice is for good."""
    code = (
        "from faceclip_serving.contract.placements import TENSORRT, TRT_RTX\n"
        "from faceclip_serving.models import tensorrt_package as package\n"
        "version = package.use(TRT_RTX)\n"
        "from polygraphy.mod.trt_importer import lazy_import_trt\n"
        "assert lazy_import_trt().__version__ == version\n"
        "package.find_spec = lambda name: name  # as if both were installed\n"
        "package.use(TENSORRT)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "PackageError: tensorrt: this process uses another TensorRT already" in done.stderr, done.stderr


@with_rtx
@without_driver
def test_without_a_driver_a_plan_is_refused_in_words(tmp_path):
    signature = components(TINY_SDXL)[DENOISER]
    with pytest.raises(PackageError, match=r"no NVIDIA driver here .*; plans run on a machine with an NVIDIA card"):
        TrtComponent(tmp_path / "model.plan", signature, Execution(TRT_RTX, "fp16"), {})


def test_the_runtimes_of_plans_differ_in_who_runs_them():
    assert (TENSORRT.backend, TRT_RTX.backend) == ("tensorrt", "python")
    assert TRT_RTX.ahead_of_time and not TENSORRT.ahead_of_time
