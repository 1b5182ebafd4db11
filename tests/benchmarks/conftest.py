"""Graphs of the tiny variant, as they went into the server's repository."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from export.onnx import export as to_onnx
from export.onnx.record import METADATA
from export.onnx.wanted import Export
from export.paths import onnx_folder
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from tests.export.engine.kept import kept

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tiny_repository_graphs(repository) -> Path:
    return ROOT / onnx_folder(TINY_SDXL) / "fp32"


@pytest.fixture
def tiny_as_fp16(tiny_repository_graphs, tmp_path) -> Path:
    """Root of components in folders of their own, the same graphs under both names: what they compute in does not matter to steps."""
    for precision in ("fp32", "fp16"):
        shutil.copytree(tiny_repository_graphs, tmp_path / "onnx" / precision)
    for folder in (tmp_path / "onnx" / "fp16").iterdir():
        metadata = json.loads((folder / METADATA).read_text())
        _, _, identity = to_onnx._made_from(to_onnx._settled(Export(TINY_SDXL, folder.name, "fp16")))
        (folder / METADATA).write_text(json.dumps({**metadata, "identity": identity}))  # so that they are kept
    return tmp_path / "onnx"


@pytest.fixture
def tiny_with_plans(tiny_as_fp16) -> Iterator[Path]:
    """The same, in a folder where plans lie that were compiled before."""
    with kept("tiny-as-fp16", tiny_as_fp16) as folder:
        yield folder
