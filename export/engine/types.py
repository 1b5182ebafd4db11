"""Names of element types, as TensorRT's inspector and logs write them."""

from __future__ import annotations

import re
from collections.abc import Iterable

UNKNOWN = "unknown"

# What we call a type, narrowest first -> how TensorRT's versions write it within a longer text, as `Channel major FP16 format where
# channel % 8 == 0`.
_TYPES = (
    ("FP4", r"\bFP4\b|\bE2M1\b"),
    ("INT4", r"\bINT4\b"),
    ("FP8", r"\bFP8\b|\bE4M3\b|\bFP8E4M3\b"),
    ("INT8", r"\bINT8\b"),
    ("BF16", r"\bBF16\b|\bBFLOAT16\b"),
    ("FP16", r"\bFP16\b|\bHALF\b|\bFLOAT16\b"),
    ("FP32", r"\bFP32\b|\bFLOAT\b|\bFLOAT32\b"),
    ("INT64", r"\bINT64\b"),
    ("INT32", r"\bINT32\b"),
    ("BOOL", r"\bBOOL\b"),
)
INDICES = ("INT64", "INT32", "BOOL")
"""Types that are counted with, not computed in."""


def type_of(text: str) -> str:
    """Our name of the type that `text` names, or `UNKNOWN`."""
    return next((name for name, pattern in _TYPES if re.search(pattern, text.upper())), UNKNOWN)


def narrowest(types: Iterable[str]) -> str:
    """Of several types, the one of fewest bits that is computed in; `UNKNOWN` where there is none."""
    order = [name for name, _ in _TYPES]
    numbers = [found for found in types if found != UNKNOWN and found not in INDICES]
    return min(numbers, key=order.index, default=UNKNOWN)
