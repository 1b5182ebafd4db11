"""A job in a Python process of its own, whose death is an answer: a GPU's memory and a crash are then nobody else's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def run_module(module: str, job: Mapping[str, Any], timeout_s: float | None = None) -> dict[str, Any]:
    """The JSON that `python -m module JOB` prints last, or `error`: why there is nothing."""
    command = [sys.executable, "-m", module, json.dumps(job)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {timeout_s:.0f} s"}
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
        return {"error": f"ended with code {done.returncode}: {last}"}
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document
