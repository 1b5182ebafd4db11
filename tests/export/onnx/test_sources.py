"""The code that an export is made by: followed through imports, and no more of it than counts."""

import shutil
from pathlib import Path

import pytest

from export.onnx import record
from export.onnx.export import export_component
from export.onnx.sources import PACKAGES, digest, reached
from export.onnx.wanted import Export
from export.paths import ROOT
from faceclip_serving.contract.names import FACE_ENCODER
from tests.export.micro import MICRO

EXPORTER = "export.onnx.export"

TREE = {
    "export/__init__.py": "",
    "export/start.py": "'Begins.'\nimport numpy\nfrom . import near\nfrom .deep import inner\nfrom faceclip_serving.contract import ONE\n",
    "export/near.py": "def later():\n    from export.late import value\n    return value\n",
    "export/late.py": "value = 1\n",
    "export/deep/__init__.py": "from ..beside import *\n",
    "export/deep/inner.py": "class Inner:\n    'Docstring.'\n    size: int = 3\n    'Of an attribute.'\n",
    "export/beside.py": "beside = 2\n",
    "export/unused.py": "from .start import near\n",
    "faceclip_serving/__init__.py": "",
    "faceclip_serving/contract/__init__.py": "from .one import ONE\n",
    "faceclip_serving/contract/one.py": "ONE = 1\n",
    "elsewhere/__init__.py": "",
}
UNREACHED = {"export/unused.py", "elsewhere/__init__.py"}


@pytest.fixture
def tree(tmp_path):
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def now():
    """The digest as another process would find it."""

    def fresh(root: Path, module: str = "export.start") -> str:
        digest.cache_clear()
        return digest(module, root)

    yield fresh
    digest.cache_clear()


def test_imports_are_followed_wherever_they_stand(tree):
    assert {path.relative_to(tree).as_posix() for path in reached("export.start", tree)} == TREE.keys() - UNREACHED


@pytest.mark.parametrize("name", list(TREE))
def test_a_change_counts_exactly_where_it_is_reached(tree, now, name):
    before = now(tree)
    with (tree / name).open("a") as file:
        file.write("\nadded = 1\n")
    assert (now(tree) != before) == (name not in UNREACHED)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("export/late.py", "value = 1\n", "# Why it is one.\n\nvalue  =  1\n"),
        ("export/start.py", "Begins.", "Begins, and says more."),
        ("export/deep/inner.py", "'Docstring.'", "'Another.'"),
        ("export/deep/inner.py", "    'Of an attribute.'\n", ""),
        ("export/near.py", "def later():\n", 'def later():\n    """What comes late."""\n'),
    ],
)
def test_comments_docstrings_and_spaces_do_not_count(tree, now, name, old, new):
    before = now(tree)
    text = (tree / name).read_text()
    assert old in text
    (tree / name).write_text(text.replace(old, new))
    assert now(tree) == before


def test_a_module_under_another_name_is_another(tree, now):
    before = now(tree)
    (tree / "export/late.py").rename(tree / "export/later.py")
    (tree / "export/near.py").write_text(TREE["export/near.py"].replace("export.late", "export.later"))
    assert now(tree) != before


def test_the_exporters_sources_are_all_that_it_works_by_and_nothing_of_serving_or_engines():
    found = {path.relative_to(ROOT).as_posix() for path in reached(EXPORTER)}
    weights = {f"export/checkpoint/{name}.py" for name in ("read", "tensor_files", "parts", "committed", "seeded", "lora")}
    steps = {
        f"export/onnx/{name}.py" for name in ("trace", "graph", "precision", "integer_weights", "parity", "example_inputs")
    }
    networks = {path.relative_to(ROOT).as_posix() for path in (ROOT / "export/networks").rglob("*.py")}
    assert weights | steps | networks | {"faceclip_serving/contract/components.py"} <= found
    rooms = {
        "faceclip_serving/contract",
        "faceclip_serving/contract/variants",
        "export/checkpoint",
        "export/networks",
        "export/networks/faceclip",
        "export/onnx",
    }
    tops = {"export", "faceclip_serving"}
    assert {str(Path(name).parent) for name in found} == rooms | tops
    asked = {
        f"faceclip_serving/contract/{name}.py" for name in ("parameters", "allowed", "scheduler_options", "request", "people")
    }
    assert not asked & found, "what requests may ask for outdates exports"


@pytest.mark.proof
def test_one_line_of_how_weights_are_read_makes_the_export_again(tmp_path, monkeypatch, now):
    project = tmp_path / "project"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, project / package, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    monkeypatch.setattr(record.sources, "digest", lambda module: now(project, module))
    wanted = Export(MICRO, FACE_ENCODER)
    made = export_component(wanted, tmp_path / FACE_ENCODER)
    assert export_component(wanted, tmp_path / FACE_ENCODER) == made

    read = project / "export/checkpoint/read.py"
    read.write_text(read.read_text() + "\n# Only a remark.\n")
    assert export_component(wanted, tmp_path / FACE_ENCODER) == made
    line = "\n    path = readable_file(checkpoint_dir, part)\n"
    assert line in read.read_text()
    read.write_text(read.read_text().replace(line, line.replace("checkpoint_dir,", "checkpoint_dir.resolve(),")))
    again = export_component(wanted, tmp_path / FACE_ENCODER)
    assert again["identity"] != made["identity"] and again["files"] == made["files"]
