"""How many threads a server needs, and how many this machine lets it have. Knows nothing of models but how many are Python's."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

OTHERS = 128
"""Of a server, besides its models' pools: 51 were counted with the tiny variant, and each network on CPU cores has one for each."""

_KERNEL = Path("/proc/sys/kernel")
_CGROUPS = Path("/sys/fs/cgroup")


def needed(models: int, calls: int) -> int:
    """Threads of a server with so many instances of Python models: each has a pool, made at once, of `calls` threads (server 2.51)."""
    return models * calls + OTHERS


def allowed() -> tuple[int, str]:
    """The fewest that a limit of this machine allows this user's or this service's processes, and what sets it."""
    return min(_limits())


def _limits() -> Iterator[tuple[int, str]]:
    for name in ("threads-max", "pid_max"):
        yield int((_KERNEL / name).read_text()), f"kernel.{name}"
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0:  # root is not bound by it
        yield soft, "ulimit -u"
    for folder in _groups():
        told = folder / "pids.max"
        if told.exists() and (most := told.read_text().strip()).isdigit():
            yield int(most), str(told)


def _groups() -> Iterator[Path]:
    """The control groups that this process is in, with all above them; within a container these are the root's."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        root = _CGROUPS / "pids" if "pids" in controllers.split(",") else _CGROUPS
        if not controllers or "pids" in controllers.split(","):
            own = Path(path.lstrip("/"))
            yield from (root / each for each in (own, *own.parents))
