"""The processes of a server's Python models, as Linux shows them: Triton starts one `triton_python_backend_stub` per instance."""

from __future__ import annotations

from pathlib import Path

STUB = "triton_python_backend_stub"
PROC = Path("/proc")


def model_processes(server: int) -> dict[int, str]:
    """Process id -> model, of the children of the tritonserver with that process id. One that has died is not among them."""
    found = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit() and _parent(folder) == server and (model := _model(folder)) is not None:
            found[int(folder.name)] = model
    return found


def runs(pid: int, server: int) -> bool:
    """Whether this model's process is still there and still a child of that server."""
    folder = PROC / str(pid)
    return _parent(folder) == server and _model(folder) is not None


def _parent(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])  # a command's name may hold spaces
    except (OSError, ValueError):
        return None


def _model(process: Path) -> str | None:
    """The folder above the version in `<model>/<version>/model.py`. A process that has died has no command line."""
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    script = next((word for word in words[1:] if word.endswith("/model.py")), None)
    return script.split("/")[-3] if script is not None and words[0].endswith(STUB) else None
