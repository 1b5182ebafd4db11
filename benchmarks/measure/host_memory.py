"""Resident memory of a process, as Linux counts it, and of a server with all its model processes. A GPU's is in `gpu`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from . import gpu

if TYPE_CHECKING:
    from server.process import TritonServer

_FIELDS = {"peak": "VmHWM", "now": "VmRSS", "own": "RssAnon", "files": "RssFile", "shared": "RssShmem"}


def memory_bytes(pid: int | str = "self") -> dict[str, int]:
    """Resident bytes: `peak` since the last `forget_peak`, `now`, and what `now` is made of.

    `own` is what only this process can hold; `files` are pages of files it has mapped (the weights of an ONNX graph among
    them), which the kernel may drop again.
    """
    lines = (line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    status = {key: value.strip() for key, value in lines}
    return {name: int(status[field].split()[0]) * 1024 for name, field in _FIELDS.items() if field in status}


def forget_peak(pid: int | str = "self") -> None:
    """The peak starts again from what the process holds now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


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
