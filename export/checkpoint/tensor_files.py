"""Safetensors files in which tensors with equal values are stored once, by the convention of safetensors' own `save_model`: the
header's metadata maps the name of a tensor that was left out to the name of the one that holds its values. Equal tensors make
equal files, byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, contiguous_format


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes `tensors` to `path`; the first of several equal ones is stored. The library's own `save_model` finds those that share
    memory, not those that are equal, and writes the metadata in an order that differs from process to process."""
    first: dict[tuple[object, ...], str] = {}
    holders = {name: first.setdefault((t.dtype, t.shape, t.detach().numpy().tobytes()), name) for name, t in tensors.items()}
    shared = {name: holder for name, holder in holders.items() if name != holder}
    kept = {name: t.detach().clone(memory_format=contiguous_format) for name, t in tensors.items() if name not in shared}
    content = save(kept, metadata=shared)
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    if shared:
        header["__metadata__"] = dict(sorted(shared.items()))
    sorted_header = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(start - 8)
    path.write_bytes(content[:8] + sorted_header + content[start:])


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, mapped from disk and read when used; equal ones that were stored once share memory."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        shared: Mapping[str, str] = file.metadata() or {}
    return tensors | {name: tensors[holder] for name, holder in shared.items() if holder in tensors}
