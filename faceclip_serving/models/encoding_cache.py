"""A bounded memory of encodings, by content: the same face or prompt is not encoded twice.

Works row by row, so the negative prompt that every request shares is found again whatever comes with it. A row's key is the
SHA-256 of everything its result depends on, the features of its face included, so a result never reaches a different input.
Holds personal data (features of faces) in this process's memory alone; a limit of 0 bytes switches it off.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np

from ..contract.components import FACE_INDEX
from ..contract.tensors import Array, Signature

Row = tuple[Array, ...]


class EncodingCache:
    """Wraps `run` of a component whose outputs have one row per face or prompt. Least recently used rows go first."""

    def __init__(self, run: Callable[[Mapping[str, Array]], dict[str, Array]], signature: Signature, max_bytes: int) -> None:
        self._run = run
        self._signature = signature
        self._max_bytes = max_bytes
        self._axis = signature.outputs[0].axes[0]
        self._rows: OrderedDict[bytes, Row] = OrderedDict()
        self._bytes = 0

    def __call__(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The component's outputs; only rows that are not known are computed."""
        if not self._max_bytes:
            return self._run(arrays)
        self._signature.check_inputs(arrays)
        keys = self._keys(arrays)
        missing = [i for i, key in enumerate(keys) if key not in self._rows]
        fresh: dict[bytes, Row] = {}
        if missing:
            outputs = self._run({name: a[missing] if self._is_per_row(name) else a for name, a in arrays.items()})
            for position, i in enumerate(missing):
                fresh[keys[i]] = tuple(outputs[tensor.name][position].copy() for tensor in self._signature.outputs)
        found = [fresh[key] if key in fresh else self._recall(key) for key in keys]
        for key, row in fresh.items():
            self._remember(key, row)
        return {tensor.name: np.stack([row[n] for row in found]) for n, tensor in enumerate(self._signature.outputs)}

    def _is_per_row(self, name: str) -> bool:
        return self._signature.input(name).axes[0] == self._axis

    def _keys(self, arrays: Mapping[str, Array]) -> list[bytes]:
        own = [name for name in sorted(arrays) if self._is_per_row(name) and name != FACE_INDEX.name]
        shared = [name for name in sorted(arrays) if not self._is_per_row(name)]
        faces = arrays[FACE_INDEX.name][:, 0] if FACE_INDEX.name in arrays else None
        keys = []
        for i in range(len(arrays[own[0]])):
            digest = hashlib.sha256()
            for name in own:
                digest.update(np.ascontiguousarray(arrays[name][i]).data)
            if faces is not None and faces[i] >= 0:
                for name in shared:
                    digest.update(np.ascontiguousarray(arrays[name][faces[i]]).data)
            keys.append(digest.digest())
        return keys

    def _recall(self, key: bytes) -> Row:
        self._rows.move_to_end(key)
        return self._rows[key]

    def _remember(self, key: bytes, row: Row) -> None:
        size = _size(row)
        if size > self._max_bytes:
            return
        self._rows[key] = row
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._bytes -= _size(self._rows.popitem(last=False)[1])


def _size(row: Row) -> int:
    return sum(array.nbytes for array in row)
