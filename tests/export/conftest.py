"""Exported graphs that several test files read: FP32 from the tiny variant that the server tests use, FP16 of a smaller one."""

import warnings
from pathlib import Path

import pytest

from export.onnx.export import export_component
from export.onnx.wanted import Export
from export.paths import onnx_folder
from faceclip_serving.contract.names import DENOISER, FACE_ENCODER
from faceclip_serving.contract.variants.sdxl import TINY_SDXL

from .micro import MICRO

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tiny_fp32(repository) -> Path:
    """Folder of the tiny variant's components, as they went into the server's repository."""
    return ROOT / onnx_folder(TINY_SDXL) / "fp32"


@pytest.fixture(scope="session")
def micro_fp16(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("micro") / "fp16"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for component in (FACE_ENCODER, DENOISER):
            export_component(Export(MICRO, component, "fp16"), folder / component)
    return folder
