"""What every measurement says besides its figures: machine, versions, commit, load. Ends a command with its one JSON line."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from export.outputs import replacing
from export.paths import ROOT
from faceclip_serving.contract.placements import CPU

PACKAGES = (
    "torch",
    "diffusers",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "polygraphy",
    "numpy",
    "tritonclient",
    "nvidia-pytriton",
)
RESULTS = ROOT / "benchmarks" / "results"
THREADS: int = psutil.cpu_count(logical=False) or os.cpu_count() or 1
"""One per physical core, as ONNX Runtime takes when it is not told: for every peer of a measurement."""


def say(line: str) -> None:
    """A line of progress, on stderr."""
    print(f"  {line}", file=sys.stderr, flush=True)


def emit(name: str, document: Mapping[str, Any]) -> None:
    """Prints the document as the last line; with FACECLIP_SAVE_RESULTS set, keeps it in `results/<name>.json` as well."""
    stamped = stamp(document)
    print(json.dumps(stamped))  # first: a figure that took hours is told, whatever becomes of the file
    if os.environ.get("FACECLIP_SAVE_RESULTS"):
        write_document(RESULTS / f"{name}.json", stamped)


def result_name(kind: str, variant: str, placement: str) -> str:
    """`overhead-nano`, or `overhead-nano-gpu-ort` where it was not measured on the CPU."""
    return "-".join([kind, variant, *([placement] if placement != CPU.name else [])])


def write_document(file: Path, document: Mapping[str, Any]) -> None:
    """As JSON for people to read; whole or not at all."""
    with replacing(file) as partial:
        partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def stamp(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with time, machine, versions and commit."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {**document, "time": now, "machine": _machine(), "versions": _versions(), "commit": _commit()}


def _machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return {"cpu": cpu, "cores": os.cpu_count(), "load_1_min": round(os.getloadavg()[0], 2), "system": platform.platform()}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
