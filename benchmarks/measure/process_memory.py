"""Memory of a process, as the kernel counts it: now, and the most since it was last asked. Linux only.

Knows /proc. What a GPU holds is in `gpu.py`.
"""

from __future__ import annotations

from pathlib import Path

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
