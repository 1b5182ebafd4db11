"""Holds places in the sampler for the requests of a public model, and notices who has left.

One thread renews all of them once a second. About as often as the denoiser is called, but seldom enough to cost next to nothing, it asks
of each whether its caller is still there, whatever the request is waiting for, and ends those whose caller has gone. A request that has
just set out is let alone: there is hardly anything of it yet that could be saved. Whoever hears of each step is looked at with each.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..contract import operations
from ..contract.names import SAMPLER
from ..contract.operations import Leave, Operation, Renew
from ..contract.tensors import Array

RENEW_EVERY_S = 1.0
NEW_S = 0.1
"""So long a place needs no look: its request is hardly drawn yet."""
LOOK_EVERY_S = (0.1, 0.5)
"""Between two looks at all callers, at least and at most. A look at one takes 0.6 ms from the step that runs, measured; a call that is
given up ends within two steps, of 50 ms and more."""
LOOK_S = 0.002
"""Between two looks, however many are held: a look asks the server, and takes time from who is being answered."""

Ask = Callable[[Operation], dict[str, Any]]
"""Asks the sampler; its report."""


def asking(call: Callable[[str, Mapping[str, Array]], dict[str, Array]]) -> Ask:
    """Operations over `call`, which runs a model of this deployment."""
    return lambda operation: dict(json.loads(call(SAMPLER, {"control": operations.encode(operation)})["report"][0]))


class _Held(NamedTuple):
    has_left: Callable[[], bool]
    since: float
    """Monotonic seconds."""


class Holder:
    """The places of one process. All methods may be called from any thread."""

    def __init__(self, ask: Ask, renew_every_s: float = RENEW_EVERY_S) -> None:
        self._ask = ask
        self._renew_every_s = renew_every_s
        self._held: dict[str, _Held] = {}
        self._changed = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="holder", daemon=True)
        self._thread.start()

    def hold(self, place: str, has_left: Callable[[], bool]) -> None:
        """Renews a place from now on. `has_left`: whether its caller is gone."""
        with self._changed:
            self._held[place] = _Held(has_left, time.monotonic())
            self._changed.notify()

    def drop(self, place: str) -> None:
        """Renews it no longer. After this its caller is not looked at: Triton frees a request with its last response."""
        with self._changed:
            self._held.pop(place, None)

    def look(self, place: str) -> None:
        """Looks at a caller, however new, and ends its request if it has gone."""
        if self._has_left(place):
            with contextlib.suppress(Exception):  # the sampler is stopping or gone; then there is nothing to end
                self._ask(Leave([place]))

    def stop(self) -> None:
        """Ends the thread."""
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        renewed_at, round_s, count = 0.0, 0.0, 0
        while (held := self._next(min(max(round_s, LOOK_EVERY_S[0], count * LOOK_S), LOOK_EVERY_S[1]))) is not None:
            count = len(held)
            if left := [place for place in held if self._has_left(place)]:
                with contextlib.suppress(Exception):
                    self._ask(Leave(left))
            if time.monotonic() - max(renewed_at, min(held.values())) >= self._renew_every_s:
                renewed_at = time.monotonic()
                with contextlib.suppress(Exception):
                    round_s = self._ask(Renew([place for place in held if place in self._held]))["round_s"]

    def _has_left(self, place: str) -> bool:
        """Whether the caller of a place that is still held has gone. Then it is looked at no more, and renewed until it is dropped."""
        with self._changed:  # so that `drop` waits for a look
            held = self._held.get(place)
            try:
                left = held is not None and held.has_left()
            except Exception:  # noqa: BLE001 - of one caller; others are looked at all the same
                left = False
            if held is not None and left:
                self._held[place] = held._replace(has_left=_nobody)
            return left

    def _next(self, wait_s: float) -> dict[str, float] | None:
        """The places that are held and not new, each with when it came, after a wait that begins when any is. None at the end."""
        with self._changed:
            while not self._over:
                self._changed.wait_for(lambda: self._over or bool(self._held))
                self._changed.wait_for(lambda: self._over, wait_s)
                since = time.monotonic() - NEW_S
                known = {place: held.since for place, held in self._held.items() if held.since <= since}
                if known and not self._over:
                    return known
            return None


def _nobody() -> bool:
    """Looks at a caller whose leave was told."""
    return False
