"""Reading a checkpoint folder: pickles made safe and fast once, tensors loaded by exact name and shape.

Knows the layout through `parts.PARTS` and nothing of what the tensors compute. A pickle is read with `weights_only=True`, so it
can bring tensors but no code, and is copied once to safetensors, with a record of checksums; later runs read that copy, and the
pickle may then be deleted.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from . import tensor_files
from .deferred import Fetch, fill
from .digests import sha256
from .errors import CheckpointError
from .parts import PARTS, Part

CONVERTED = "converted"
"""Folder, in the checkpoint folder, of the safetensors copies and their records."""

_NAMES_SHOWN = 5
_DOWNLOAD_AGAIN = "download it again: python -m export download --only {part}"


def load_part(
    module: nn.Module, checkpoint_dir: Path, part: str, only: str = "", defer_large: bool = False, subset: bool = False
) -> None:
    """Loads every tensor of `module` from `part`: names and shapes must be exactly the module's, its dtypes are kept.

    A module on the meta device is given memory: that of the mapped file where the dtype agrees, so that nothing is copied. Of
    such a module, tensors whose names do not begin with `only` are checked but stay without memory, and with `defer_large` large
    parameters are converted when they are used (see `deferred`). `subset`: the part may have more than the module.
    """
    path = readable_file(checkpoint_dir, part)
    tensors = read_tensors(path, part)
    expected = module.state_dict()
    if subset:
        tensors = {name: tensor for name, tensor in tensors.items() if name in expected}
    _check_fit(expected, tensors, path, part)
    if not any(tensor.is_meta for tensor in expected.values()):
        module.load_state_dict(tensors)
        return

    def converted(tensor: Tensor, dtype: torch.dtype) -> Fetch:
        return lambda: tensor.to(dtype)

    needed = {name: converted(tensor, expected[name].dtype) for name, tensor in tensors.items() if name.startswith(only)}
    fill(module, needed, defer_large)


def read_tensors(path: Path, part: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, mapped from disk and read when used."""
    with _damage_reported(path, part):
        return _without_prefix(tensor_files.read_tensors(path), _row(part).strip_prefix)


def readable_file(checkpoint_dir: Path, part: str) -> Path:
    """The safetensors file that holds `part`'s tensors; a pickle is converted by the first call.

    `<part>.safetensors` at the top of the folder comes first: the layout of weights that this project trains."""
    (names,) = _row(part).files
    if (plain := checkpoint_dir / f"{part}.safetensors").is_file():
        return plain
    if names[0].endswith(".safetensors"):
        return _existing(checkpoint_dir / _row(part).folder, part, names)
    source = checkpoint_dir / names[0]
    target = checkpoint_dir / CONVERTED / f"{part}.safetensors"
    if not _is_current(source, target):
        _convert(_existing(checkpoint_dir, part, names), target, part)
    return target


# ------------------------------------------------------------------------------------------------------------ conversion
def _is_current(source: Path, target: Path) -> bool:
    """Whether `target` is the whole copy of `source` as it is now. A source that was deleted after conversion is no change."""
    try:
        record = json.loads(_record_path(target).read_text())
        if target.stat().st_size != record["converted"]["size_bytes"]:
            return False
        found = source.stat() if source.exists() else None
        return found is None or [found.st_size, found.st_mtime_ns] == [
            record["source"][key] for key in ("size_bytes", "mtime_ns")
        ]
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return False


def _convert(source: Path, target: Path, part: str) -> None:
    """Writes `target` and its record. Both appear complete or not at all; memory stays far below the file's size."""
    # Taken before reading: a source replaced meanwhile is then converted again by the next run.
    found = source.stat()
    tensors = _unpickle(source, part)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(_own_memory(_without_prefix(tensors, _row(part).strip_prefix)), partial)
        record = {
            "source": {
                "file": source.name,
                "size_bytes": found.st_size,
                "mtime_ns": found.st_mtime_ns,
                "sha256": sha256(source),
            },
            "converted": {"file": target.name, "size_bytes": partial.stat().st_size, "sha256": sha256(partial)},
            "tensors": len(tensors),
        }
        shutil.copymode(source, partial)  # the writer's own mode lets nobody else read it
        _record_path(target).unlink(missing_ok=True)  # an old record must never meet the new file
        partial.replace(target)
        partial.write_text(json.dumps(record, indent=2) + "\n")
        partial.replace(_record_path(target))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"part '{part}', file '{target}': could not be written ({error}); the copy needs {found.st_size / 1e9:.1f} GB: "
            f"make room, or make '{target.parent}' writable"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _record_path(target: Path) -> Path:
    return target.with_suffix(".json")


def _unpickle(path: Path, part: str) -> dict[str, Tensor]:
    with _damage_reported(path, part):
        # Only the zip form that torch writes since 1.6 can be mapped; the older form is read into memory.
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        found = type(loaded).__name__
        if isinstance(loaded, Mapping):
            others = [name for name, value in loaded.items() if not isinstance(value, Tensor)]
            found = f"{_shown(map(str, others))} that are no tensors"
        raise CheckpointError(
            f"part '{part}', file '{path}': expected a state dict, names to tensors, got {found}; "
            f"save the bare state dict, or {_DOWNLOAD_AGAIN.format(part=part)}"
        )
    return dict(loaded)


def _own_memory(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, contiguous, with copies of those that share memory, which safetensors does not store."""
    seen: set[int] = set()
    owned = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        else:
            seen.add(storage.data_ptr())
        owned[name] = tensor
    return owned


# ------------------------------------------------------------------------------------------------------------ checks
def _row(part: str) -> Part:
    if part not in PARTS:
        raise CheckpointError(f"part '{part}': expected one of {', '.join(PARTS)}")
    return PARTS[part]


def _existing(checkpoint_dir: Path, part: str, names: tuple[str, ...]) -> Path:
    for name in names:
        if (checkpoint_dir / name).is_file():
            return checkpoint_dir / name
    wanted = " or ".join(f"'{checkpoint_dir / name}'" for name in names)
    raise CheckpointError(
        f"part '{part}': file {wanted} is missing; {_DOWNLOAD_AGAIN.format(part=part)} --to {checkpoint_dir}, "
        "or give a folder of the official layout"
    )


@contextmanager
def _damage_reported(path: Path, part: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        again = "the next run makes it again" if path.parent.name == CONVERTED else _DOWNLOAD_AGAIN.format(part=part)
        raise CheckpointError(
            f"part '{part}', file '{path}' ({path.stat().st_size:,} bytes): not a whole file of tensors ({reason}); "
            f"delete it; {again}"
        ) from error


def _check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path, part: str) -> None:
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    reshaped = [
        f"{name} (expected {list(tensor.shape)}, found {list(found[name].shape)})"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    faults = {"missing": missing, "not known to the network": unknown, "of another shape": reshaped}
    if any(faults.values()):
        told = "; ".join(f"{len(names)} {what}: {_shown(names)}" for what, names in faults.items() if names)
        origin = f" (made from '{_row(part).files[0][0]}')" if path.parent.name == CONVERTED else ""
        raise CheckpointError(
            f"part '{part}', file '{path}'{origin}: its {len(found)} tensors are not the {len(expected)} of the network. {told}. "
            f"Is it the file of another variant? Otherwise {_DOWNLOAD_AGAIN.format(part=part)}"
        )


def _shown(names: Iterable[str]) -> str:
    """The first few of many names."""
    all_names = list(names)
    more = len(all_names) - _NAMES_SHOWN
    return ", ".join(all_names[:_NAMES_SHOWN]) + (f", and {more} more" if more > 0 else "")


def _without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
