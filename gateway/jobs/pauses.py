"""How long nothing is begun for a model whose servers are away, or for a job whose attempt was lost."""

from __future__ import annotations

import random
import time

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0


class Pauses:
    """Of models and jobs, by their names. Belongs to one event loop."""

    def __init__(self) -> None:
        self._ends: dict[object, tuple[float, float]] = {}  # until when (monotonic), how long

    def over(self, *keys: object) -> bool:
        """Whether none of them pauses."""
        now = time.monotonic()
        return all(self._ends.get(key, (0.0, 0.0))[0] <= now for key in keys)

    def begin(self, key: object, told_s: float | None) -> None:
        """Twice as long as the pause before, or as long as the server told; those who fail together pause once."""
        now = time.monotonic()
        until, length = self._ends.get(key, (0.0, FIRST_PAUSE_S / 2))
        if until <= now:
            length = min(2 * length, LONGEST_PAUSE_S)
            kept = {each: pause for each, pause in self._ends.items() if pause[0] > now - 4 * LONGEST_PAUSE_S}
            self._ends = {**kept, key: (now + (told_s or length * random.uniform(0.75, 1.25)), length)}

    def forget(self, key: object) -> None:
        """The next pause is a first one."""
        self._ends.pop(key, None)

    def rests_s(self) -> list[float]:
        """How long each goes on."""
        now = time.monotonic()
        return [until - now for until, _ in self._ends.values() if until > now]
