"""`python -m benchmarks <measurement>`; the last line on stdout is one JSON document."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from export.commandline import Command, run_command

COMMANDS = {
    "identities": Command("benchmarks.quality.identities", "time to a picture with a sealed identity against its photograph"),
    "parity": Command("benchmarks.quality.parity", "served pictures against diffusers' pipeline"),
    "overhead": Command("benchmarks.speed.overhead", "served requests against one process"),
    "compare": Command("benchmarks.speed.compare", "served against its peers, in one run"),
    "latency": Command("benchmarks.speed.latency", "floor, stages, requests; sweeps and a chart"),
    "vram": Command("benchmarks.memory.vram", "idle and peak memory of the host, and of a GPU if there is one"),
    "compiled": Command("benchmarks.memory.compiled", "whether TensorRT for RTX takes each graph, and what memory it says"),
    "onestep": Command("benchmarks.memory.onestep", "each component once, at full size"),
    "serving": Command("benchmarks.speed.serving", "throughput, late joiners, cancellation"),
    "placements": Command(
        "benchmarks.placements.command", "every placement of every family, served; emulated without its card"
    ),
    "full-size": Command("benchmarks.placements.full_size", "one full-size placement, emulated: a picture by the real server"),
    "probes": Command("benchmarks.speed.probes", "time of /ready and /live while the server is full"),
    "soak": Command("benchmarks.speed.soak", "leaks under mixed load"),
    "chaos": Command(
        "benchmarks.chaos.command", "what a server promises, under everything at once; exit code 1 where it breaks"
    ),
    "step-cache": Command("benchmarks.speed.step_cache", "which step_cache keeps pictures good enough"),
    "precision": Command("benchmarks.speed.precision", "pictures of a narrower denoiser against FP32"),
    "quality": Command("benchmarks.quality.command", "identity, text alignment and quality, beside the peers"),
    "photographs": Command(
        "benchmarks.quality.newcomers", "nano: photographs of people whom no training saw: faces, skin, hair"
    ),
    "edits": Command("benchmarks.quality.edits", "nano: who is in a picture whose face or head was replaced"),
    "marks": Command("benchmarks.marks.command", "what the invisible mark survives, costs and mistakes"),
    "checks": Command("benchmarks.checks.command", "what the checks of requests refuse, mistake and cost"),
    "gateway": Command(
        "benchmarks.gateway.command", "what the HTTP gateway adds to a request; jobs over kills of it and the server"
    ),
    "fleet": Command(
        "benchmarks.fleet.command",
        "servers behind one address: what two give over one, what is lost when one goes; many, simulated",
    ),
    "audit": Command("benchmarks.audit.command", "the audit log: cost of a record, crashes, tampering of every kind"),
    "studio": Command("benchmarks.studio.command", "the page in a browser: first paint, bytes, what axe finds; pictures of it"),
    "report": Command("benchmarks.gpu.report_file", "forecast, vram, latency and compare in one file to share"),
    "mutants": Command("benchmarks.mutants.command", "which small faults in a module its unit tests do not notice"),
    "gpu-verify": Command("benchmarks.gpu.verify", "a placement on a card, part by part with bounds: one report"),
}

_PURPOSE = (
    "Measurements. `python -m benchmarks <measurement> --help` explains each; the last line on stdout is one JSON document."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one measurement; returns its exit code."""
    return run_command("python -m benchmarks", _PURPOSE, COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
