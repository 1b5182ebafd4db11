"""Components weighed one at a time, each in a process of its own, against what counting predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.checkpoint.memory import free_bytes
from export.forecast.cost import graph_cost
from export.forecast.shapes import concrete, find
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import RUNTIMES

from ..measure.floor import float_bits
from ..measure.report import say
from .component_process import ComponentRun, weighed


class NoRoomError(UserError):
    """A component cannot be run here: it needs more memory than is free."""


def predicted(job: ComponentRun) -> dict[str, int]:
    """Counted from the graph: FLOPs, the weights as stored and as computed with, and the most bytes of activations at once."""
    graph = concrete(find(job.variant, job.component, Path(job.graph).parents[2]), job.sizes)
    stored, computed = (graph_cost(graph, bits) for bits in (None, float_bits(RUNTIMES[job.runtime])))
    return {
        "flops": stored.flops,
        "parameters": stored.parameters,
        "stored_weight_bytes": stored.weight_bytes,
        "weight_bytes": computed.weight_bytes,
        "activation_peak_bytes": computed.activation_peak_bytes,
    }


def weigh(job: ComponentRun) -> dict[str, Any]:
    """Measured seconds and bytes beside the predicted ones. Raises `NoRoomError`, `ComponentProcessError`, `GraphError`."""
    counted = predicted(job)
    needed, free = counted["weight_bytes"] + counted["activation_peak_bytes"], free_bytes()
    if free is not None and needed > free and RUNTIMES[job.runtime].instance_kind == "KIND_CPU":
        raise NoRoomError(
            f"{job.component}: weights and activations take {needed / 1e9:.1f} GB at {dict(job.sizes)}, {free / 1e9:.1f} GB are free;"
            " end other programs, choose a smaller size, or a larger machine"
        )
    say(f"{job.component}: {needed / 1e9:.2f} GB predicted, {counted['flops'] / 1e9:.3g} GFLOP")
    found = weighed(job)
    run_s, peak = found["runs_s"][-1], found["bytes"]["run_peak"]
    say(f"{job.component}: {peak / 1e9:.2f} GB at most, {run_s:.2f} s a run")
    return {**found, "predicted": counted, "sizes": dict(job.sizes), "threads": job.threads}
