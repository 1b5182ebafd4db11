"""Which TensorRT a process uses, and the card that it runs on: both are asked for once, and what is missing is said in words.

Polygraphy drives TensorRT and TensorRT for RTX alike. Which of them, it reads from the environment when it is imported: one process
has one of them. Knows packages and the driver; nothing of plans.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec

from ..contract.errors import UserError
from ..contract.placements import TENSORRT, TRT_RTX, Runtime

OLDEST = {"tensorrt": (10, 12), "tensorrt_rtx": (1, 7)}
"""Package -> the oldest version that this code was written for."""
_CURE = {
    "tensorrt": "engines need it in the very version that the server has; build inside the serving image (deploy/README.md), where"
    " both are the same",
    "tensorrt_rtx": "`make setup` installs it on Linux, x86-64, where alone it exists (pip install tensorrt-rtx-cu13)",
}
_CHOICE = "POLYGRAPHY_USE_TENSORRT_RTX"


class PackageError(UserError):
    """TensorRT, Polygraphy or the card is missing, or not what was expected; the message says what to do."""


def use(runtime: Runtime) -> str:
    """Makes the TensorRT of `runtime` the one of this process; returns its version.

    Call it before anything of Polygraphy is imported. Raises `PackageError` where a package is missing, cannot be loaded or is too old,
    and where this process uses another TensorRT already.
    """
    package = runtime.package
    for name, cure in ((package, _CURE[package]), ("polygraphy", "pip install polygraphy")):
        if find_spec(name) is None:
            raise PackageError(f"the Python package '{name}' is not installed: {cure}")
    choice = "1" if package == TRT_RTX.package else "0"
    if "polygraphy" in sys.modules and os.environ.get(_CHOICE, "0") != choice:
        raise PackageError(f"{package}: this process uses another TensorRT already, and one process has one of them")
    os.environ[_CHOICE] = choice
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as nvidia-smi numbers cards
    try:
        if package == TRT_RTX.package:
            import tensorrt_rtx

            found = str(tensorrt_rtx.__version__)
        else:
            import tensorrt

            found = str(tensorrt.__version__)
    except (ImportError, OSError) as error:
        raise PackageError(f"{package} is installed, but its libraries do not load ({error}): {_CURE[package]}") from error
    check_version(package, found)
    return found


def check_version(package: str, found: str) -> None:
    """Raises `PackageError` for a version that this code was not written for."""
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST[package]:
        oldest = ".".join(map(str, OLDEST[package]))
        raise PackageError(f"{package}: expected {oldest} or later, found {found}: {_CURE[package]}")


def installed() -> Runtime:
    """The runtime whose TensorRT is installed here; TensorRT proper where both are, or neither."""
    only_rtx = find_spec(TENSORRT.package) is None and find_spec(TRT_RTX.package) is not None
    return TRT_RTX if only_rtx else TENSORRT


@dataclass(frozen=True)
class Card:
    """A GPU, in the driver's words."""

    name: str
    """e.g. `NVIDIA GeForce RTX 4090`."""
    capability: str
    """Compute capability, e.g. `8.9`."""
    driver: str
    """Version of the driver, e.g. `580.95.05`."""
    total_bytes: int | None
    """None where card and host share their memory."""
    free_bytes: int | None


def find_card(gpu: int = 0) -> Card:
    """The card that nvidia-smi numbers `gpu`, among those that CUDA_VISIBLE_DEVICES leaves. Raises `PackageError` where there is none."""
    visible = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    if visible and gpu >= len(visible):
        raise PackageError(f"GPU {gpu}: CUDA_VISIBLE_DEVICES leaves {len(visible)} here")
    which = visible[gpu] if visible else str(gpu)
    query = ["nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits", "-i", which]
    try:
        asked = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except OSError as error:
        raise PackageError(
            f"no NVIDIA driver here ({error}); plans run on a machine with an NVIDIA card and its driver"
        ) from None
    if asked.returncode:
        raise PackageError(f"GPU {which}: nvidia-smi says: {(asked.stdout + asked.stderr).strip()}")
    return read_card(asked.stdout)


_FIELDS = "name,compute_cap,driver_version,memory.total,memory.free"


def read_card(line: str) -> Card:
    """A card from nvidia-smi's line; memory is in MiB there."""
    fields = [field.strip() for field in line.strip().splitlines()[0].split(",")] if line.strip() else []
    if len(fields) != 5:
        raise PackageError(f"nvidia-smi: expected name, compute capability, driver and memory of one card, got {line!r}")
    total, free = (int(field) * 2**20 if field.isdigit() else None for field in fields[3:])
    return Card(fields[0], fields[1], fields[2], total, free)
