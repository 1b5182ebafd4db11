"""What is noted beside an exported component, and whether what lies there is still what would be made.

Knows files, versions and how to sum up a definition; nothing of networks or of how a graph is made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..checkpoint.digests import sha256
from . import sources

METADATA = "metadata.json"

_LIBRARIES = ("torch", "diffusers", "onnx", "onnx-ir", "onnxscript", "onnxruntime")


def identity(definition: Iterable[object], weights: Path | None) -> str:
    """SHA-256 of all that an exported component follows from: its definition, weights (None: seeded), code and libraries."""
    parts = [
        *map(repr, definition),
        *([] if weights is None else [repr(_file_state(weights))]),
        *(f"{name} {found}" for name, found in versions().items()),
        sources.digest("export.onnx.export"),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def versions() -> dict[str, str]:
    """The libraries whose version may change an exported graph."""
    return {name: _version(name) for name in _LIBRARIES}


def _version(name: str) -> str:
    """Of an installed library; that of ONNX Runtime for GPUs has another distribution name, and the same module."""
    try:
        return version(name)
    except PackageNotFoundError:
        return version(f"{name}-gpu")


def weights_source(weights: Path | None, given: bool = False) -> dict[str, object]:
    """Where weights came from, in words that name no folder of this machine. `given`: somebody chose them."""
    if weights is None:
        return {"source": "seeded"}
    name, size, _ = _file_state(weights)
    return {"source": "checkpoint", "file": name, "bytes": size, "given": given}


def read_metadata(folder: Path) -> dict[str, Any] | None:
    """The metadata of an exported component, or None where there is none that can be read."""
    try:
        found = json.loads((folder / METADATA).read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) and {"identity", "files"} <= found.keys() else None


def describe_files(folder: Path) -> dict[str, dict[str, object]]:
    """Name -> size and checksum of every file in `folder`."""
    return {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())}


def kept(folder: Path, identity: str) -> dict[str, Any] | None:
    """The metadata of the component in `folder`, if it is whole and made from what `identity` sums up."""
    found = read_metadata(folder)
    return found if found is not None and found["identity"] == identity and is_whole(folder, found) else None


def is_whole(folder: Path, metadata: Mapping[str, Any]) -> bool:
    """Whether every file that `metadata` names is there in its full size."""
    files = ((folder / name, entry["bytes"]) for name, entry in metadata["files"].items())
    return all(path.is_file() and path.stat().st_size == size for path, size in files)


def _file_state(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return path.name, found.st_size, found.st_mtime_ns
