"""Why requests have ended while nobody listened, kept for a while: it is told to whom asks next."""

from __future__ import annotations

import copy
from collections import OrderedDict

REASONS_KEPT = 1024


class Reasons:
    """Place -> why its request has ended. Called by one thread at a time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Exception] = OrderedDict()

    def keep(self, place: str, error: Exception) -> None:
        """Forgets the oldest where there are too many."""
        self._kept[place] = in_words(error)
        if len(self._kept) > REASONS_KEPT:
            self._kept.popitem(last=False)

    def of(self, place: str) -> Exception | None:
        """None where that is not known any more. A copy, since whoever raises it hangs frames on it."""
        known = self._kept.get(place)
        return known and in_words(known)


def in_words(error: Exception) -> Exception:
    """The same error without the frames that it passed through: their arrays and requests would live as long as it is kept."""
    try:
        return copy.copy(error)
    except Exception:  # noqa: BLE001 - a class that cannot be made again from what it says
        return RuntimeError(f"{type(error).__name__}: {error}")
