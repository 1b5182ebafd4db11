"""A card that has no more memory than a placement says, whatever the card has: the rest is occupied, so what needs more fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

SPARE_BYTES = 64_000_000
"""Left free beyond the limit: CUDA rounds what it hands out."""


@contextmanager
def hold(limit_bytes: int) -> Iterator[int]:
    """Occupies the card but for `limit_bytes`; gives how many bytes were taken: 0 where the card has no more, or torch sees no card."""
    import torch

    if not torch.cuda.is_available():
        yield 0
        return
    free, _ = torch.cuda.mem_get_info()
    taken = max(0, free - limit_bytes - SPARE_BYTES)
    held = torch.empty(taken, dtype=torch.uint8, device="cuda")
    try:
        yield taken
    finally:
        del held
        torch.cuda.empty_cache()
