"""Numbers on command lines: `float` alone takes `nan`, which no comparison ends, and `inf`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def finite(unit: str = "", zero: bool = False) -> Callable[[str], float]:
    """`type` of an option that is a finite number of `unit` above 0, or also 0; its error says so, and what came."""
    expected = f"a finite number{unit and f' of {unit}'}{', 0 or more' if zero else ' above 0'}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            raise argparse.ArgumentTypeError(f"expected {expected}, got '{text}'")
        return value

    return read


seconds = finite("seconds")
seconds_or_none = finite("seconds", zero=True)
"""0: not at all."""
