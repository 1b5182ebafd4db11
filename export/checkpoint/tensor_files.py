"""Safetensors files in which tensors with equal values are stored once, by the convention of safetensors' own `save_model`: the
header's metadata maps the name of a tensor that was left out to the name of the one that holds its values. Equal tensors make
equal files, byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes `tensors` to `path`; the first of several equal ones is stored."""
    first: dict[tuple[object, ...], str] = {}
    kept: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        values = (tensor.dtype, tensor.shape, tensor.flatten().numpy().tobytes())
        if values in first:
            shared[name] = first[values]
        else:
            first[values] = name
            kept[name] = tensor.clone()  # safetensors refuses tensors that share memory
    save_file(kept, path, metadata=shared)
    _sort_metadata(path)
    path.chmod(0o644)  # the writer's own mode lets nobody else read it


def _sort_metadata(path: Path) -> None:
    """The library writes the metadata in an order that differs from process to process."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
            file.seek(8)
            file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, mapped from disk and read when used; equal ones that were stored once share memory."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        shared: Mapping[str, str] = file.metadata() or {}
    return tensors | {name: tensors[holder] for name, holder in shared.items() if holder in tensors}
