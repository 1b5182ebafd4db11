"""A job in a Python process of its own, whose death is an answer: a GPU's memory and a crash are then nobody else's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from export.paths import ROOT

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def run_module(module: str, job: DataclassInstance, timeout_s: float | None = None) -> dict[str, Any]:
    """The JSON that `python -m module JOB` prints last, or `error`: why there is nothing."""
    command = [sys.executable, "-m", module, json.dumps(asdict(job))]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {timeout_s:.0f} s"}
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
        killed = "killed; most likely it needed more memory than there is" if done.returncode == -signal.SIGKILL else last
        return {"error": f"ended with code {done.returncode}: {killed}"}
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document
