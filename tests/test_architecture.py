"""Data flows one way: a package imports only from those to its left."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = ["faceclip_serving", "export", "server", "faceclip", "benchmarks", "examples"]
FOLDERS = {name: ROOT / name for name in ORDER} | {"faceclip": ROOT / "client" / "faceclip"}
ALONE = {"faceclip": set(), "server": {"faceclip_serving"}}
"""The client imports nothing of ours; the server launcher only the contract."""


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_left(package):
    files = list(FOLDERS[package].rglob("*.py"))
    assert files
    allowed = ALONE.get(package, set(ORDER[: ORDER.index(package)])) | {package}
    for path in files:
        assert imported(path) & set(ORDER) <= allowed, path


def test_the_models_of_the_repository_import_only_the_shared_code():
    for path in (ROOT / "model_repository").rglob("model.py"):
        assert imported(path) & set(ORDER) == {"faceclip_serving"}, path


@pytest.mark.parametrize(
    "module",
    [
        "contract.tensors",
        "contract.variants",
        "contract.signatures",
        "contract.placements",
        "contract.parameters",
        "models.prompts",
        "models.prepare",
        "models.finish",
        "models.onnx_model",
        "models.streaming",
        "models.metrics",
    ],
)
def test_torch_is_needed_by_the_sampler_alone(module):
    """Every other model of the server starts without its weight."""
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        path = ROOT / "faceclip_serving" / f"{name}.py"
        if name in seen or not path.exists():
            continue
        seen.add(name)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        todo += [node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module]
        top = {alias.name.split(".")[0] for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        top |= {
            node.module.split(".")[0]
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and not node.level and node.module
        }
        assert not top & {"torch", "diffusers"}, path
