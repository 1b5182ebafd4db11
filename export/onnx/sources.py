"""The code that an export follows from: every module of this project that a module imports, directly or not.

Read from the source, so nothing is run and no list is kept by hand. Comments and docstrings do not count: whoever mends prose need
not export again.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ..paths import ROOT

PACKAGES = ("export", "faceclip_serving")
"""Only these can be reached: data flows one way."""


def reached(module: str, root: Path = ROOT) -> list[Path]:
    """Files of the modules that `module` imports, wherever in the file, and its own; sorted. `root`: folder of the packages."""
    seen: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name, root)
        if path is None or path in seen:
            continue
        seen.add(path)
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # a package's __init__ runs first
        waiting += _imports(name, path)
    return sorted(seen)


@cache
def digest(module: str, root: Path = ROOT) -> str:
    """SHA-256 of the code of `reached`."""
    found = hashlib.sha256()
    for path in reached(module, root):
        found.update(path.relative_to(root).as_posix().encode() + b"\0" + _code(path).encode() + b"\0")
    return found.hexdigest()


def _file(module: str, root: Path) -> Path | None:
    if module.split(".")[0] not in PACKAGES:
        return None
    base = root.joinpath(*module.split("."))
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


def _imports(module: str, path: Path) -> Iterator[str]:
    """Names that may be modules; those that are not have no file."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _code(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.stmt) -> bool:
    """A docstring, of a module, class, function or attribute."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
