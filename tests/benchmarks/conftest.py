"""Graphs of the tiny variant, as they went into the server's repository."""

from pathlib import Path

import pytest

from export.paths import onnx_folder
from faceclip_serving.contract.sdxl import TINY_SDXL

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tiny_repository_graphs(repository) -> Path:
    return ROOT / onnx_folder(TINY_SDXL) / "fp32"
