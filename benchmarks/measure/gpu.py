"""What the driver says of NVIDIA GPUs, through NVML; nothing where there is no driver, or no `pynvml` to ask it with.

Memory is this process's own (and its children's), so that others on a shared card are not counted.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Collection
from types import TracebackType
from typing import Any

SAMPLE_S = 0.01


def nvml() -> Any | None:
    """The initialised NVML binding, or None."""
    try:
        binding = importlib.import_module("pynvml")
        binding.nvmlInit()
    except Exception:  # noqa: BLE001  the binding's own errors have no common type when it is absent
        return None
    return binding


def devices() -> list[dict[str, Any]]:
    """Name, memory and driver of every GPU."""
    binding = nvml()
    if binding is None:
        return []
    found = []
    for index in range(binding.nvmlDeviceGetCount()):
        handle = binding.nvmlDeviceGetHandleByIndex(index)
        memory = binding.nvmlDeviceGetMemoryInfo(handle)
        found.append(
            {
                "name": _text(binding.nvmlDeviceGetName(handle)),
                "total_bytes": int(memory.total),
                "used_bytes": int(memory.used),
                "driver": _text(binding.nvmlSystemGetDriverVersion()),
            }
        )
    return found


def process_bytes(pids: Collection[int] | None = None) -> int | None:
    """Bytes that these processes (default: this one) hold on all GPUs; None where NVML does not say."""
    binding = nvml()
    if binding is None:
        return None
    wanted = {os.getpid()} if pids is None else set(pids)
    total = 0
    for index in range(binding.nvmlDeviceGetCount()):
        handle = binding.nvmlDeviceGetHandleByIndex(index)
        for process in binding.nvmlDeviceGetComputeRunningProcesses(handle):
            if process.pid in wanted:
                if process.usedGpuMemory is None:
                    return None
                total += int(process.usedGpuMemory)
    return total


def energy_j() -> float | None:
    """Joules that all GPUs have used since the driver was loaded; None where they do not count."""
    binding = nvml()
    if binding is None:
        return None
    try:
        handles = [binding.nvmlDeviceGetHandleByIndex(index) for index in range(binding.nvmlDeviceGetCount())]
        return float(sum(binding.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles)) / 1e3
    except binding.NVMLError:
        return None


class Peak:
    """Within `with`, watches `process_bytes`; `bytes` is the most seen, None where there is nothing to see.

    `card_bytes`: the most that all GPUs held beyond what they held at the start, whoever holds it. Inside a container, the driver
    may know processes by other numbers: `bytes` is 0 then, and this one tells.
    """

    def __init__(self, pids: Collection[int] | None = None) -> None:
        self.bytes: int | None = None
        self.card_bytes: int | None = None
        self._pids = pids
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        start = _used_bytes()
        while start is not None:
            self.card_bytes = max(self.card_bytes or 0, (_used_bytes() or start) - start)
            now = process_bytes(self._pids)
            if now is not None:
                self.bytes = max(self.bytes or 0, now)
            if self._stop.wait(SAMPLE_S):
                return

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()


def _used_bytes() -> int | None:
    """Bytes in use on all GPUs; None where there are none."""
    found = devices()
    return sum(int(each["used_bytes"]) for each in found) if found else None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
