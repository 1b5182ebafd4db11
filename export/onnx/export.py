"""A component of a variant -> `model.onnx`, its weights, and `metadata.json`, complete and proven or not at all.

Large weights are never in memory together: the network runs with those of one layer at a time, is traced with none, and each is
fetched, converted and written by itself (see `deferred`). ONNX Runtime then maps the files. Parity needs time rather than memory;
where that is not to be had, it is proven on the same widths with fewer blocks (`depth`), and metadata.json says so. Knows the
steps; each step's knowledge lies in its own module.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from faceclip_serving.contract.placements import FUSED_FILE, ONNX_FILE, ONNX_WEIGHTS_FILE

from ..checkpoint.committed import weights_folder
from ..checkpoint.deferred import deferred_parameters
from ..checkpoint.digests import sha256
from ..checkpoint.memory import require_disk
from ..checkpoint.read import readable_file
from ..networks.components import Network, build, loras_of, network, unquantized
from ..outputs import appearing
from . import fused_attention, graph, parity
from .clock import Clock
from .eight_bit_factors import quantize_factors
from .errors import ExportError
from .graph_precision import check_precision, precision_report
from .integer_weights import quantize
from .precision import BYTES, to_half
from .record import METADATA, describe_files, identity, kept, read_metadata, versions, weights_source
from .statistics import export_statistics
from .trace import OPSET, trace
from .wanted import CALIBRATED, DEPTHS, FACTOR_PRECISIONS, PRECISIONS, WEIGHT_BITS, Export

_M_MMAP_THRESHOLD = -3
"""Of glibc's malloc.h."""

_TRACING = ("onnxscript.function_libs.torch_lib.ops", "sympy.physics.units", "sympy.tensor.tensor")
"""What torch's exporter imports with the first trace of a process, for most of a second."""

References = Sequence[tuple[parity.Case, parity.Arrays]]
"""What the FP32 network answers to each case."""


def export_component(wanted: Export, destination: Path, half: Path | None = None) -> dict[str, Any]:
    """Writes a component to the folder `destination` and returns its metadata.

    What is there already is kept if it was made from the same definition, weights, LoRAs, code and libraries. `half`: a folder where
    the same may lie in FP16; if it does, the weights of that graph are rounded, and nothing is traced again. Raises `ExportError`,
    `LoraError`, `ParityError`, `PrecisionError` or `GraphError`, and then leaves `destination` as it was.
    """
    require_named(wanted, destination)
    export = _settled(wanted)
    weights, loras, key = _made_from(export)
    existing = kept(destination, key)
    if existing is not None:
        print(f"{export.component} {export.precision}: kept, nothing it is made from has changed", file=sys.stderr)
        return existing
    with appearing(destination, METADATA) as folder:
        clock = Clock(f"{export.component} {export.precision}")
        made = _make(export, folder, clock, half if half is not None and _gives(half, export) else None)
        metadata = {
            "variant": export.variant.name,
            "component": export.component,
            "precision": export.precision,
            "opset": OPSET,
            "identity": key,
            "weights": weights_source(weights, given=wanted.checkpoint is not None),
            "loras": loras,
            **made,
            "versions": versions(),
            "files": describe_files(folder),
            "seconds": clock.seconds,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        (folder / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
    return metadata


def is_kept(wanted: Export, destination: Path) -> bool:
    """Whether `export_component` would keep what is there."""
    return kept(destination, _made_from(_settled(wanted))[2]) is not None


def _gives(half: Path, export: Export) -> bool:
    """Whether the component of `export`, whose weights are integers, follows from what lies in `half`."""
    same = replace(export, precision="fp16")
    return export.precision in WEIGHT_BITS and kept(half, _made_from(same)[2]) is not None


def require_named(wanted: Export, destination: Path) -> None:
    """Raises `ExportError` where other LoRAs or weights were chosen for the files in `destination`, and `wanted` names none.

    Such files are neither replaced nor kept: which of the two was meant, only whoever asks can say.
    """
    chosen = unnamed(wanted, destination)
    if chosen:
        raise ExportError(
            f"{wanted.component} {wanted.precision}: {destination} was made with {' and '.join(chosen)}, and nothing like it is named"
            " now; name it again (--lora FILE:SCALE, --checkpoint DIR; with make LORA=FILE:SCALE, CHECKPOINT=DIR), or delete that folder"
            " to do without"
        )


def unnamed(wanted: Export, destination: Path) -> list[str]:
    """LoRAs and weights that were chosen for the files in `destination` where `wanted` names none, in words."""
    found = read_metadata(destination) or {}
    loras = [] if wanted.loras else [f"LoRA {each['file']}:{each['scale']:g}" for each in found.get("loras", ())]
    weights = found.get("weights", {})
    brought = wanted.variant.weights == "committed"  # older files do not say whether a checkpoint was given
    given = weights.get("source") == "checkpoint" and weights.get("given", not brought)
    return [*loras, *([f"the weights of {weights['file']}"] if given and wanted.checkpoint is None else [])]


def _made_from(export: Export) -> tuple[Path | None, list[dict[str, object]], str]:
    """The file of its weights, its LoRAs in words, and the identity of everything that it is made from."""
    weights = None if export.checkpoint is None else readable_file(export.checkpoint, _row(export).part)
    loras = [lora.describe() for lora in export.loras]
    architecture = (export.variant.architecture, export.variant.tokens)
    definition = (*architecture, export.signature, export.limits, export.precision, export.depth, OPSET, *loras)
    return weights, loras, identity(definition, weights)


def _settled(wanted: Export, precisions: Sequence[str] = PRECISIONS) -> Export:
    """The export with the checkpoint folder that will be read and the LoRAs that change it. Raises `ExportError`.

    `precisions`: those that can be made.
    """
    if wanted.precision not in precisions:
        raise ExportError(f"precision: expected one of {', '.join(precisions)}, got '{wanted.precision}'")
    checkpoint = wanted.checkpoint if wanted.seeded else weights_folder(wanted.variant, wanted.checkpoint)
    if checkpoint is None and not wanted.seeded and wanted.variant.weights != "seeded":
        raise ExportError(
            f"checkpoint: variant '{wanted.variant.name}' has published weights; give the folder that `python -m export download`"
            " filled (--checkpoint), or allow stand-ins that make no pictures (--seeded)"
        )
    if wanted.depth not in DEPTHS:
        raise ExportError(f"parity depth: expected one of {', '.join(DEPTHS)}, got '{wanted.depth}'")
    loras = loras_of(wanted.variant, wanted.component, wanted.loras)
    return replace(wanted, checkpoint=checkpoint, loras=tuple(loras))


# ------------------------------------------------------------------------------------------------------------- processes
def write_unproven(wanted: Export, destination: Path) -> None:
    """The graph alone, in a process of its own: for whoever weighs it. Without metadata, so nothing takes it for an export.

    In a precision of `CALIBRATED` it is not calibrated.
    """
    settled = _settled(wanted, (*PRECISIONS, *CALIBRATED))
    if settled.precision in FACTOR_PRECISIONS:
        unquantized(settled.variant, settled.component)  # what has no rules for 8 bits is refused before a process starts
    with ProcessPoolExecutor(1, get_context("forkserver")) as pool:
        pool.submit(_write_in_process, settled, destination).result()


def _write_in_process(export: Export, destination: Path) -> None:
    destination.mkdir(parents=True, exist_ok=True)
    _give_back_large_buffers()
    _write(export, destination, Clock(f"{export.component} {export.precision}"), [])


def outline(wanted: Export) -> bytes:
    """The graph alone as serialised ONNX, its weights without values; made in a process of its own, in little memory and no disk."""
    with ProcessPoolExecutor(1, get_context("forkserver")) as pool:
        return pool.submit(_outline_in_process, _settled(wanted)).result()


def _outline_in_process(export: Export) -> bytes:
    clock = Clock(f"{export.component} {export.precision}")
    with clock.phase("weights"):
        module = _module(export)
    if export.precision != "fp32":
        with clock.phase("conversion"):
            _convert(export, module, parity.torch_run(module, export.signature), [])
    model, _ = _graph(export, module, clock)
    outlined: bytes = graph.outline(model).SerializeToString(deterministic=True)
    return outlined


def export_components(exports: Sequence[Export], root: Path, processes: int = 1) -> Iterator[dict[str, Any]]:
    """Exports to `root`/<precision>/<component>/, each in a process of its own; yields their metadata in the given order.

    A process's memory goes back whole, so the peak is that of one component, or of `processes` at a time.
    """
    for each in exports:  # before the first takes its minutes
        require_named(each, root / each.precision / each.component)
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, *_TRACING])  # torch is imported once, for all of them
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    with ProcessPoolExecutor(processes, context, max_tasks_per_child=1) as pool:
        futures = [pool.submit(_export_in_process, threads, each, root) for each in exports]
        for export, future in zip(exports, futures, strict=True):
            try:
                made = future.result()
                export_statistics([export], root)
                yield made
            except BrokenProcessPool as error:
                raise ExportError(
                    f"{export.component}: its process was killed, most likely for want of memory; with --processes several"
                    " components are in memory at once"
                ) from error
            finally:
                if future.exception() is not None:
                    pool.shutdown(cancel_futures=True)


def _export_in_process(threads: int, export: Export, root: Path) -> dict[str, Any]:
    torch.set_num_threads(threads)
    gc.freeze()  # torch's own objects stay; to look through them again and again took a seventh of a trace
    _give_back_large_buffers()
    return export_component(export, root / export.precision / export.component, root / "fp16" / export.component)


def _give_back_large_buffers() -> None:
    """Makes glibc map buffers of 1 MiB and more one by one, and so return each when it is freed.

    Left to itself, it raises that limit to 32 MiB with the first large buffer freed, and keeps the smaller ones in a heap that
    only grows: measured on the full-size denoiser, 3.4 GB of 16.3.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)


# ----------------------------------------------------------------------------------------------------------------- steps
@dataclass(frozen=True)
class _Written:
    """What is known once the files are written, and nothing of torch is left in memory."""

    parameters: int
    notes: dict[str, object]
    operators: dict[str, dict[str, int]]
    references: References
    findings: list[parity.Finding]


def _make(export: Export, folder: Path, clock: Clock, half: Path | None) -> dict[str, Any]:
    """Everything between the weights and the files, proven at the depth that is wanted. Returns what was found on the way."""
    if export.depth == "full":
        written = _write(export, folder, clock, _cases(export), half=half)
        proof = _prove(export, folder, clock, written)
    else:
        shallow = _shallow(export)
        with tempfile.TemporaryDirectory(dir=folder.parent, suffix=".partial") as scratch:
            proven = _write(shallow, Path(scratch), clock, _cases(shallow), subset=True)
            proof = {**_prove(shallow, Path(scratch), clock, proven), "proven_on": shallow.variant.name}
        written = _write(export, folder, clock, [], half=half)
    return {
        "parameters": written.parameters,
        "notes": written.notes,
        "operators": written.operators,
        "parity": proof,
    }


def _shallow(export: Export) -> Export:
    """The export of the same widths and fewer blocks that parity is proven on. Raises `ExportError`."""
    shallow = _row(export).shallow
    if shallow is None:
        raise ExportError(
            f"parity depth: '{export.component}' of variant '{export.variant.name}' has no shallow form; leave out --parity-depth"
        )
    return replace(export, variant=shallow(export.variant), loras=())


def _row(export: Export) -> Network:
    return network(export.variant, export.component)


def _cases(export: Export) -> list[parity.Case]:
    return parity.cases(export.variant, export.signature, export.limits)


def _write(
    export: Export, folder: Path, clock: Clock, cases: list[parity.Case], subset: bool = False, half: Path | None = None
) -> _Written:
    """Weights -> `model.onnx`. Half precision is compared here, on `cases`; `subset`: the checkpoint has more than the network.

    `half`: see `export_component`.
    """
    with clock.phase("weights"):
        module = _module(export, subset)
    parameters = sum(tensor.numel() for tensor in module.state_dict().values())
    what = f"component '{export.component}' of variant '{export.variant.name}'"
    require_disk(what, parameters * (BYTES[export.precision] + (0 if half is None else BYTES["fp16"])), folder)
    run = parity.torch_run(module, export.signature)
    with clock.phase("reference"):
        references = [(case, run(case.inputs)) for case in cases]
    findings = []
    if export.precision != "fp32":
        with clock.phase("conversion"):
            findings = _convert(export, module, run, references)
    operators = _write_graph(export, module, folder, clock, half)
    notes: Any = module.notes  # as they are now: torch's exporter puts a copy in their place
    return _Written(parameters, notes, operators, references, findings)


def _module(export: Export, subset: bool = False) -> nn.Module:
    return build(export.variant, export.component, export.checkpoint, export.loras, subset)


def _convert(export: Export, module: nn.Module, run: parity.Run, references: References) -> list[parity.Finding]:
    """Half precision, in place. ONNX Runtime's CPU provider computes FP16 graphs in FP32, so overflow and rounding show only here."""
    row = _row(export)
    if row.fit_half is not None:
        row.fit_half(module, [parity.by_position(export.signature, case.inputs) for case, _ in references])
    to_half(module, row.fp32)
    findings = parity.compare("torch fp16", run, export.signature, references)
    if findings:
        parity.require(findings, export.component, "fp16", row.tolerance["fp16"])
    return findings


def _write_graph(export: Export, module: nn.Module, folder: Path, clock: Clock, half: Path | None) -> dict[str, dict[str, int]]:
    """The module as files in `folder`; what precision their operators have, see `precision_report`."""
    with tempfile.TemporaryDirectory(dir=folder.parent, suffix=".partial") as own:
        copied = half is not None and _copied(half, Path(own))
        model, traced = _graph(export, module, clock, Path(own) if copied else None)
        with clock.phase("files"):
            graph.save(model, folder)
            graph.verify_file(folder / ONNX_FILE, export.signature)
            operators = precision_report(folder / ONNX_FILE)
            check_precision(operators, export.precision)
            if export.precision in fused_attention.PRECISIONS:
                notes: Any = module.notes
                notes["fused_attentions"] = fused_attention.write_fused(folder)
                graph.verify_file(folder / FUSED_FILE, export.signature)
    # torch's exporter keeps what it last traced, and with it the weights.
    for value in (*traced, *model.graph.initializers.values()):
        value.const_value = None
    return operators


def _copied(half: Path, own: Path) -> bool:
    """Whether the graph in `half` and its weights, now in `own` too, are what was written there.

    A copy, since onnx-ir refuses weights with two hard links, as an assembled repository makes them.
    """
    written = (read_metadata(half) or {"files": {}})["files"]
    for name in (ONNX_FILE, ONNX_WEIGHTS_FILE):
        shutil.copy(half / name, own)
        if name not in written or sha256(own / name) != written[name]["sha256"]:
            print(f"{half / name}: is not what was written there; the weights are traced anew", file=sys.stderr)
            return False
    return True


def _graph(export: Export, module: nn.Module, clock: Clock, half: Path | None = None) -> tuple[ir.Model, list[ir.Value]]:
    """The module as a graph under its signature's names; also the weights as they were traced."""
    if half is None:
        with clock.phase("trace"):
            model = trace(module, export)
            traced = list(model.graph.initializers.values())
    with clock.phase("graph"):
        if half is None:
            graph.defer_weights(model, deferred_parameters(module))
            graph.clean(model)
        else:
            model, traced = ir.load(half / ONNX_FILE), []
        if export.precision in WEIGHT_BITS:
            notes: Any = module.notes
            row = _row(export)
            notes.update(quantize(model, WEIGHT_BITS[export.precision], row.keep_half, row.keep_eight(export.variant)))
        if export.precision in FACTOR_PRECISIONS:
            quantize_factors(model, export.precision, unquantized(export.variant, export.component))
        graph.conform(model, export.signature)
    return model, traced


def _prove(export: Export, folder: Path, clock: Clock, written: _Written) -> dict[str, Any]:
    """Compares the written file with the references. Raises `ParityError`."""
    gc.collect()  # modules refer to themselves: their weights would stay beside ONNX Runtime's
    tolerance = _row(export).tolerance[export.precision]
    with clock.phase("parity"):
        run = parity.onnx_run(folder / ONNX_FILE, export.signature)
        findings = [*written.findings, *parity.compare("onnxruntime", run, export.signature, written.references)]
        findings += parity.compare_alone(run, export.signature, written.references[-1][0])
        if export.precision in fused_attention.PRECISIONS:
            del run  # with its session
            run = parity.onnx_run(folder / FUSED_FILE, export.signature)
            findings += parity.compare("attention as one operator", run, export.signature, written.references)
        parity.require(findings, export.component, export.precision, tolerance)
    return {"tolerance": tolerance, "findings": parity.summary(findings)}
