"""A bounded memory of encodings, by content: the same face or prompt is not encoded twice.

Works row by row, so the negative prompt that every request shares is found again whatever comes with it. A row's key is the
SHA-256 of everything its result depends on, the features of its face included, so a result never reaches a different input.
Holds personal data (features of faces) in this process's memory alone, for a limited time; a limit of 0 bytes switches it off.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..audit.revoked import Revoked
from ..contract.components import FACE_INDEX
from ..contract.tensors import Array, Signature

log = logging.getLogger(__name__)

Row = tuple[Array, ...]


class EncodingCache:
    """Wraps `run` of a component whose outputs have one row per face or prompt. Least recently used rows go first.

    `run` is called by one thread at a time; the rest may be by any.
    """

    def __init__(
        self,
        run: Callable[[Mapping[str, Array]], dict[str, Array]],
        signature: Signature,
        max_bytes: int,
        max_age_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        on_lookup: Callable[[int, int], None] = lambda hits, misses: None,
    ) -> None:
        """`max_age_s`: seconds since a row was computed after which it is not used any more; `forget_old` frees it.

        `on_lookup` hears of each call how many of its rows were known, and how many were not.
        """
        self._run = run
        self._max_age_s, self._clock, self._on_lookup = max_age_s, clock, on_lookup
        self._lock = threading.Lock()
        self._made: dict[bytes, float] = {}
        """Key of a row -> when it was computed."""
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
        self.forget_old()
        with self._lock:
            known = {key: self._recall(key) for key in keys if key in self._rows}
        missing = [i for i, key in enumerate(keys) if key not in known]
        self._on_lookup(len(keys) - len(missing), len(missing))
        fresh: dict[bytes, Row] = {}
        if missing:
            outputs = self._run({name: a[missing] if self._is_per_row(name) else a for name, a in arrays.items()})
            for position, i in enumerate(missing):
                fresh[keys[i]] = tuple(outputs[tensor.name][position].copy() for tensor in self._signature.outputs)
        found = [fresh[key] if key in fresh else known[key] for key in keys]
        with self._lock:
            for key, row in fresh.items():
                self._remember(key, row)
        return {tensor.name: np.stack([row[n] for row in found]) for n, tensor in enumerate(self._signature.outputs)}

    def forget_old(self) -> None:
        """Frees the rows whose time is over."""
        with self._lock:
            oldest = self._clock() - self._max_age_s
            for key in [key for key, made in self._made.items() if made <= oldest]:
                self._drop(key)

    def forget_all(self) -> None:
        """Frees all rows."""
        with self._lock:
            self._rows.clear()
            self._made.clear()
            self._bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

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
        self._rows[key], self._made[key] = row, self._clock()
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._rows)))

    def _drop(self, key: bytes) -> None:
        self._bytes -= _size(self._rows.pop(key))
        del self._made[key]


def _size(row: Row) -> int:
    return sum(array.nbytes for array in row)


LOOK_EVERY_S = 1.0
EMPTY_S = 60.0
"""So long after a revocation nothing is remembered: requests that were let in before it may still be encoded."""


class Forgetting:
    """Frees, in a thread of its own, what is too old, and all of it when somebody takes consent back."""

    def __init__(
        self, memories: Sequence[EncodingCache], revoked: Revoked | None = None, every_s: float = LOOK_EVERY_S
    ) -> None:
        self._memories, self._revoked, self._every_s = memories, revoked, every_s
        self._over = threading.Event()
        self._seen = self._version()
        self._empty_until = 0.0
        self._thread = threading.Thread(target=self._run, name="forget", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            version, now = self._version(), time.monotonic()
            if version != self._seen:
                self._seen, self._empty_until = version, now + EMPTY_S
            for memory in self._memories:
                if now < self._empty_until:
                    memory.forget_all()
                else:
                    memory.forget_old()

    def _version(self) -> object:
        try:
            return self._revoked.version() if self._revoked is not None else None
        except Exception:
            log.exception("whether somebody has taken consent back cannot be seen: nothing is remembered")
            return object()  # never the same again, so that all is forgotten
