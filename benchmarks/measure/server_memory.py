"""Memory of a server and all its model processes: resident, and on GPUs."""

from __future__ import annotations

from collections.abc import Sequence

import psutil

from server.process import TritonServer

from . import gpu
from .process_memory import forget_peak, memory_bytes


def pids(server: TritonServer) -> list[int]:
    """The server's process and its models'."""
    root = psutil.Process(server.pid)
    return [process.pid for process in (root, *root.children(recursive=True))]


def start_peak(server: TritonServer) -> None:
    """Peaks of all processes start again from now."""
    for pid in pids(server):
        forget_peak(pid)


def usage(server: TritonServer) -> dict[str, int]:
    """Bytes of all processes together: `now`, and `peak`, the sum of each one's own since `start_peak`: as if all peaked at once,
    so never too little. `gpu` where NVML tells. Pages that processes share count in each."""
    found = [memory_bytes(pid) for pid in pids(server)]
    on_gpu = gpu.process_bytes(pids(server))
    return {
        "now": sum(each["now"] for each in found),
        "peak": sum(each["peak"] for each in found),
        **({} if on_gpu is None else {"gpu": on_gpu}),
    }


def by_process(server: TritonServer) -> dict[str, dict[str, int]]:
    """`memory_bytes` of tritonserver and of the process of each Python model, by the model's name."""
    root = psutil.Process(server.pid)
    found = {"tritonserver": memory_bytes(server.pid)}
    for process in root.children(recursive=True):
        name = model_of(process.cmdline())
        same = sum(known.split(" #")[0] == name for known in found)
        found[f"{name} #{same + 1}" if same else name] = memory_bytes(process.pid)
    return found


def model_of(command: Sequence[str]) -> str:
    """The model that a process of Triton's Python backend runs: the folder above the version of `<model>/<version>/model.py`."""
    script = next((word for word in command if word.endswith("/model.py")), None)
    return script.split("/")[-3] if script else " ".join(command[:1]) or "unknown"
