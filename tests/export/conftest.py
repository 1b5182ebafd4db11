"""Exported graphs that several test files read: FP32 from the tiny variant that the server tests use, FP16 of a smaller one."""

from pathlib import Path

import pytest

from export.paths import onnx_folder
from faceclip_serving.contract.names import DENOISER, FACE_ENCODER
from faceclip_serving.contract.variants.sdxl import TINY_SDXL

from .micro import MICRO, exported

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tiny_fp32(repository) -> Path:
    """Folder of the tiny variant's components, as they went into the server's repository."""
    return ROOT / onnx_folder(TINY_SDXL) / "fp32"


@pytest.fixture(scope="session")
def micro_fp16() -> Path:
    """Folder of the face encoder and the denoiser of the micro variant."""
    face, denoiser = (exported(MICRO, component, "fp16") for component in (FACE_ENCODER, DENOISER))
    assert face.parent == denoiser.parent
    return face.parent
