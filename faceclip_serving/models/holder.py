"""Holds places in the sampler for the requests that a process works for, and notices who has left.

One thread renews all of them once a second. It asks of each whether its caller is still there, whatever the request is waiting
for, and ends those whose caller has gone; a place that the sampler has ended meanwhile is known to be lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from ..contract import operations
from ..contract.operations import End, Operation, Renew
from ..contract.signatures import SAMPLER
from ..contract.tensors import Array

RENEW_EVERY_S = 1.0

Ask = Callable[[Operation], dict[str, Any]]
"""Asks the sampler; its report."""


def asking(call: Callable[[str, Mapping[str, Array]], dict[str, Array]]) -> Ask:
    """Operations over `call`, which runs a model of this deployment."""
    import json

    return lambda operation: dict(json.loads(call(SAMPLER, {"control": operations.encode(operation)})["report"][0]))


class Holder:
    """The places of one process. All methods may be called from any thread."""

    def __init__(self, ask: Ask, every_s: float = RENEW_EVERY_S) -> None:
        self._ask = ask
        self._every_s = every_s
        self._held: dict[str, Callable[[], bool]] = {}
        self._lost: set[str] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="holder", daemon=True)
        self._thread.start()

    def hold(self, place: str, has_left: Callable[[], bool] = lambda: False) -> None:
        """Renews a place from now on. `has_left`: whether its caller is gone."""
        with self._lock:
            self._held[place] = has_left

    def drop(self, place: str) -> None:
        """Renews it no longer."""
        with self._lock:
            self._held.pop(place, None)
            self._lost.discard(place)

    def lost(self, place: str) -> bool:
        """Whether the sampler has ended the request of a place that is held."""
        with self._lock:
            return place in self._lost

    def stop(self) -> None:
        """Ends the thread."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            with self._lock:
                held = dict(self._held)
            try:
                for place in [place for place, has_left in held.items() if has_left()]:
                    self._ask(End(place, "cancelled"))
                if held:
                    gone = self._ask(Renew(list(held)))["gone"]
                    with self._lock:
                        self._lost |= self._held.keys() & set(gone)
            except Exception:  # noqa: BLE001 - the sampler is stopping or gone; then there is nothing to hold
                continue
