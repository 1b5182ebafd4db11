"""Safetensors files in which tensors with equal values are stored once, by the convention of safetensors' own `save_model`: the
header's metadata maps the name of a tensor that was left out to the name of the one that holds its values.
"""

from __future__ import annotations

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
    path.chmod(0o644)  # the writer's own mode lets nobody else read it


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, mapped from disk and read when used; equal ones that were stored once share memory."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        shared: Mapping[str, str] = file.metadata() or {}
    return tensors | {name: tensors[holder] for name, holder in shared.items() if holder in tensors}
