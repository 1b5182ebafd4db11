"""A card that has no more memory than a placement says, whatever the card has: the rest is occupied, so what needs more fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from export.engine.errors import EngineError

SPARE_BYTES = 64_000_000
"""Left free beyond the limit: CUDA rounds what it hands out."""


@contextmanager
def hold(limit_bytes: int) -> Iterator[int]:
    """Occupies the card but for `limit_bytes`; gives how many bytes were taken: 0 where the card has no more, or torch sees no card.

    Raises `EngineError` where the card does not give what it says is free.
    """
    import torch

    if not torch.cuda.is_available():
        yield 0
        return
    free, _ = torch.cuda.mem_get_info()
    taken = max(0, free - limit_bytes - SPARE_BYTES)
    try:
        held = torch.empty(taken, dtype=torch.uint8, device="cuda")
    except RuntimeError as error:  # CUDA's: out of memory, or a card that another keeps
        raise EngineError(
            f"{taken} bytes of the card could not be occupied, {free} were free ({error}); end what else uses it"
        ) from error
    try:
        yield taken
    finally:
        del held
        torch.cuda.empty_cache()
