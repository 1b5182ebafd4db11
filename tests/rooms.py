"""The project's rooms, its folders of Python files, and which imports which: `python -m tests.rooms` prints both.

Read from the source: every import statement, wherever in a file it stands, is followed to the file that it names.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("faceclip_serving", "export", "server", "faceclip", "training", "benchmarks", "examples", "deploy")
FOLDERS = {name: ROOT / name for name in PACKAGES} | {"faceclip": ROOT / "client" / "faceclip"}


def modules(folders: dict[str, Path] = FOLDERS) -> dict[str, Path]:
    """Dotted name -> file, of every module of the packages, and of the models of `model_repository`."""
    found = {}
    for package, folder in folders.items():
        for path in sorted(folder.rglob("*.py")):
            name = ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
            found[name] = path
    models = ROOT / "model_repository"
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


def main() -> int:
    known = modules()
    found = arrows(known)
    for name in sorted({room(module, path) for module, path in known.items()}):
        files = [path for module, path in known.items() if room(module, path) == name]
        lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
        uses = sorted(target for source, target in found if source == name)
        print(f"{name:28} {len(files):3} files {lines:6} lines   imports {', '.join(uses) or 'nothing'}")
    edges = {(module, target) for module, path in known.items() for target in imported(module, path, known)}
    print(
        f"{len(known)} files, {len(edges)} imports among them; {len({a for a, _ in found} | {b for _, b in found})} rooms, {len(found)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
