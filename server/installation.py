"""Finding a tritonserver, and the environment it needs.

Two kinds exist: the one in the wheel `nvidia-pytriton` (Python backend and ensembles, no GPU, no container), and the one of
NVIDIA's container under /opt/tritonserver. The wheel's Python backend runs models with the Python that this module runs in.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from faceclip_serving.contract.errors import UserError

CONTAINER = Path("/opt/tritonserver")


class InstallationError(UserError):
    """No usable tritonserver; the message says how to get one."""


@dataclass(frozen=True)
class Installation:
    binary: Path
    backends: Path
    caches: Path
    environment: dict[str, str]
    """Variables to set over the caller's environment."""
    python: str
    """The Python that runs the models, for people to read."""


def find(workspace: Path) -> Installation:
    """The container's server if there is one, else the wheel's. `workspace`: an empty folder that lasts as long as the server."""
    if (CONTAINER / "bin" / "tritonserver").exists():
        return Installation(
            CONTAINER / "bin" / "tritonserver", CONTAINER / "backends", CONTAINER / "caches", {}, "the container's python3"
        )
    return _from_wheel(workspace)


def _from_wheel(workspace: Path) -> Installation:
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise InstallationError(
            "no tritonserver here: pip install --no-deps nvidia-pytriton==0.7.0, or run inside NVIDIA's container"
        )
    site = Path(spec.origin).parent.parent
    server = site / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        known = sorted(path.name for path in stub.parent.parent.iterdir())
        raise InstallationError(
            f"the wheel has Python backends for CPython {', '.join(known)}, not for {version}: use one of those"
        )
    _check_numpy()
    backends = workspace / "backends"
    (backends / "python").mkdir(parents=True)
    for file in (*(server / "backends" / "python").glob("*.*"), stub):  # the backend expects the stub beside itself
        (backends / "python" / file.name).symlink_to(file)
    libraries = [str(site / "nvidia_pytriton.libs"), *_libpython_folder(version)]
    environment = {
        # The stub embeds Python and takes the environment of the first python3 on PATH; PYTHONPATH is not read.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "LD_LIBRARY_PATH": os.pathsep.join([*libraries, os.environ.get("LD_LIBRARY_PATH", "")]).rstrip(os.pathsep),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return Installation(
        server / "bin" / "tritonserver", backends, server / "caches", environment, f"CPython {version} of {sys.prefix}"
    )


def _check_numpy() -> None:
    import numpy as np

    if int(np.__version__.split(".")[0]) >= 2:
        raise InstallationError(
            f"numpy {np.__version__} is installed, but the wheel's Python backend returns empty tensors with numpy 2:"
            " pip install 'numpy<2'"
        )


def _libpython_folder(version: str) -> list[str]:
    """Where the interpreter's own shared library lies, if it has one and the system's loader may not find it."""
    folder = sysconfig.get_config_var("LIBDIR") or ""
    # Not `Path.exists`, which raises where another user may not look.
    return [folder] if os.path.exists(f"{folder}/libpython{version}.so.1.0") else []
