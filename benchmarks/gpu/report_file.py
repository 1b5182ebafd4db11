"""One file that says how fast this machine is and what it needs: forecast, memory, latency, comparison, with hardware and versions.

Each part is a command of its own in a process of its own. If one fails, the file says why, and has the others' figures. Nothing in it
names a person or a folder.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.commandline import add_checkpoint, add_placement, add_variant
from export.outputs import require_file
from export.paths import ROOT

from ..measure import gpu
from ..measure.report import stamp, write_document

FOLDER = Path("build/benchmarks")


def parts(variant: str, placement: str, checkpoint: Path | None, runs: int, skip: Sequence[str]) -> dict[str, list[str]]:
    """Name of a part -> its command after `python -m`."""
    served = ["--variant", variant, "--placement", placement, *(["--checkpoint", str(checkpoint)] if checkpoint else [])]
    found = {
        "forecast": ["export", "forecast", "--variant", variant, "--placement", placement, "--json"],
        "vram": ["benchmarks", "vram", *served],
        "latency": ["benchmarks", "latency", *served, "--runs", str(runs)],
        "compare": ["benchmarks", "compare", *served],
    }
    return {name: command for name, command in found.items() if name not in skip}


def collected(commands: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The JSON document of each part; for one that failed, its last message under `error`."""
    found: dict[str, Any] = {}
    for name, command in commands.items():
        print(f"{name}: python -m {' '.join(command)}", file=sys.stderr, flush=True)
        started = time.monotonic()
        done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
        print(done.stderr, file=sys.stderr, end="", flush=True)
        found[name] = outcome(done.returncode, done.stdout, done.stderr)
        found[name] |= {"part_s": round(time.monotonic() - started, 1)}
    return found


def outcome(code: int, output: str, errors: str) -> dict[str, Any]:
    """What one part said: its last line of output, and what was wrong where it did not end well."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    document: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    if code:
        last = next((line for line in reversed(errors.splitlines()) if line.strip()), "no message")
        document["error"] = f"ended with code {code}: {last}"
    return document


def file_name(kind: str, variant: str, placement: str, device: str) -> str:
    """`report-sdxl-8gb-nvidia-geforce-rtx-3070.json`."""
    return f"{kind}-{variant}-{placement}-{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    add_placement(parser, "gpu-ort")
    parser.add_argument("--runs", type=int, default=20, help="of each stage and request (default: %(default)s)")
    parser.add_argument("--skip", choices=("forecast", "vram", "latency", "compare"), action="append", default=[])
    add_checkpoint(parser, "folder of the official layout (default: the variant's own)")


def run(args: argparse.Namespace) -> int:
    gpus = gpu.devices()
    path = FOLDER / file_name("report", args.variant, args.placement, str(gpus[0]["name"]) if gpus else "cpu")
    require_file(path)  # before hours are spent
    found = collected(parts(args.variant, args.placement, args.checkpoint, args.runs, args.skip))
    failed = [f"{name}: {document['error']}" for name, document in found.items() if "error" in document]
    whole = stamp({"variant": args.variant, "placement": args.placement, "gpus": gpus, "failed": failed, **found})
    write_document(path, whole)
    print(f"the report is {path}", file=sys.stderr)
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    print(json.dumps({"report": str(path), "failed": failed}))
    return 1 if failed else 0
