"""Whether a network fits into this machine's memory and its file onto the disk: asked, and answered in words, before hours are
spent to find out.

Knows how much memory and disk are free; what the network is, is the caller's affair.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from faceclip_serving.contract.errors import UserError

_MEMINFO = Path("/proc/meminfo")
FP32_BYTES = 4


class OutOfMemoryError(UserError):
    """A network needs more memory than there is."""


class OutOfDiskError(UserError):
    """A file needs more room than there is."""


def require_disk(what: str, needed: int, folder: Path) -> None:
    """Raises `OutOfDiskError` where `folder` has less than `needed` bytes free. `what` begins the message."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutOfDiskError(
            f"{what}: its file takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free where it is to be written; make room,"
            " or choose another --output"
        )


def require_memory(what: str, tensors: Iterable[Tensor]) -> None:
    """Raises `OutOfMemoryError` where `tensors`, in FP32, are larger than the memory that is free. `what` begins the message."""
    values = sum(tensor.numel() for tensor in tensors)
    free = free_bytes()
    if free is not None and values * FP32_BYTES > free:
        raise OutOfMemoryError(
            f"{what}: its {values / 1e6:,.0f} million weights take {values * FP32_BYTES / 1e9:.1f} GB in FP32, in which they are"
            f" exported, and {free / 1e9:.1f} GB of memory are free; export it on a larger machine, or free memory"
        )


def free_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system does not say."""
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    found = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if found is None else int(found) * 1024
