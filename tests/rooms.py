"""The project's rooms, its folders of Python files, and which imports which: `python -m tests.rooms [CHECKOUT]` prints both.

Read from the source: every import statement, wherever in a file it stands, is followed to the file that it names.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("faceclip_serving", "export", "server", "faceclip", "training", "benchmarks", "examples", "deploy", "gateway")


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Dotted name -> file, of every module of the packages below `root`, and of the models of `model_repository`."""
    found = {}
    for package in PACKAGES:
        folder = root / ("client/faceclip" if package == "faceclip" else package)
        for path in sorted(folder.rglob("*.py")):
            name = ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
            found[name] = path
    models = root / "model_repository"
    return found | {f"model_repository.{path.parent.parent.name}.{path.stem}": path for path in sorted(models.rglob("*.py"))}


def imported(module: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules among `known` that a file imports, each as often as it is named."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            submodules = [f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in known]
            yield from submodules or ([base] if base in known else [])


def room(module: str, path: Path) -> str:
    """The folder of a module: `export.onnx` of `export.onnx.graph`. A model of the repository is in `model_repository`."""
    if module.startswith("model_repository."):
        return "model_repository"
    return module if path.name == "__init__.py" else module.rpartition(".")[0]


def arrows(known: dict[str, Path]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(room, room it imports) -> the modules that do so; imports within a room left out."""
    found = defaultdict(list)
    for module, path in known.items():
        for target in imported(module, path, known):
            pair = room(module, path), room(target, known[target])
            if pair[0] != pair[1]:
                found[pair].append((module, target))
    return dict(found)


def main(root: Path = ROOT) -> int:
    known = modules(root)
    found = arrows(known)
    for name in sorted({room(module, path) for module, path in known.items()}):
        files = [path for module, path in known.items() if room(module, path) == name]
        lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
        uses = sorted(target for source, target in found if source == name)
        print(f"{name:28} {len(files):3} files {lines:6} lines   imports {', '.join(uses) or 'nothing'}")
    print("\ninside a package:      files, imports among them   rooms, imports among them")
    for package in PACKAGES:
        inside = {module: path for module, path in known.items() if module.split(".")[0] == package and path.stem != "__init__"}
        edges = {(module, target) for module, path in inside.items() for target in imported(module, path, inside)}
        rooms = {room(module, path) for module, path in inside.items() if path.stem != "__main__"} - {package}
        pairs = [pair for pair in found if set(pair) <= rooms]
        print(f"{package:22} {len(inside):5} {len(edges):8} {len(rooms) or 1:24} {len(pairs):8}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
