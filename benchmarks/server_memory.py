"""Memory of a server and all its model processes: resident, and on GPUs."""

from __future__ import annotations

import psutil

from server.process import TritonServer

from . import gpu
from .memory import forget_peak, memory_bytes


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
