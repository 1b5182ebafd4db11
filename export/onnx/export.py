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
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import nn

from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import placements
from faceclip_serving.contract.signatures import bounds, components, multiples
from faceclip_serving.contract.tensors import Bounds, Range, Signature
from faceclip_serving.contract.variant import Variant

from ..checkpoint.committed import weights_folder
from ..checkpoint.deferred import deferred_parameters
from ..checkpoint.lora import Lora
from ..checkpoint.memory import require_disk
from ..checkpoint.read import readable_file
from ..networks.components import build, loras_of, network
from . import graph, parity
from .clock import Clock
from .example_inputs import example_inputs
from .int8_weights import quantize
from .precision import BYTES, PRECISIONS, check_precision, fp32_products, precision_report, to_half
from .record import METADATA, describe_files, identity, is_whole, move_into_place, read_metadata, versions, weights_source

OPSET = 21
"""The first with a GroupNormalization that scales channels, which TensorRT's parser reads since 10.9 and ONNX Runtime runs; it
also has LayerNormalization (17), Gelu and GridSample (20) as single operators. Later opsets add operators that TensorRT's parser
does not know, as RMSNormalization (23)."""

DEPTHS = ("full", "shallow")
"""On what parity is proven: the component itself, or its form of fewer blocks."""

_M_MMAP_THRESHOLD = -3
"""Of glibc's malloc.h."""


class ExportError(UserError):
    """A component cannot be exported; the message says why and what to do."""


def export_component(
    variant: Variant,
    component: str,
    precision: str,
    destination: Path,
    checkpoint: Path | None = None,
    seeded: bool = False,
    loras: Sequence[Lora] = (),
    depth: str = "full",
) -> dict[str, Any]:
    """Writes one component to the folder `destination` and returns its metadata.

    `seeded` allows deterministic stand-ins for the weights of a variant that has a checkpoint. `loras` are fused into the weights.
    What is there already is kept if it was made from the same definition, weights, LoRAs, code and libraries. Raises `ExportError`,
    `LoraError`, `ParityError`, `PrecisionError` or `GraphError`, and then leaves `destination` as it was.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"precision: expected one of {', '.join(PRECISIONS)}, got '{precision}'")
    if not seeded:
        checkpoint = weights_folder(variant, checkpoint)
    if checkpoint is None and not seeded and variant.weights != "seeded":
        raise ExportError(
            f"checkpoint: variant '{variant.name}' has published weights; give the folder that `python -m export download` filled"
            " (--checkpoint), or allow stand-ins that make no pictures (--seeded)"
        )
    if depth not in DEPTHS:
        raise ExportError(f"parity depth: expected one of {', '.join(DEPTHS)}, got '{depth}'")
    row, limits = network(variant, component), traced_bounds(variant)[component]
    weights = None if checkpoint is None else readable_file(checkpoint, row.part)
    fused = loras_of(variant, component, loras)
    applied = [lora.describe() for lora in fused]  # none: the identity is that of an export without the option
    definition = (
        variant.architecture,
        variant.tokens,
        components(variant)[component],
        limits,
        precision,
        depth,
        OPSET,
        *applied,
    )
    key = identity(definition, weights)
    existing = read_metadata(destination)
    if existing is not None and existing["identity"] == key and is_whole(destination, existing):
        print(f"{component} {precision}: kept, nothing it is made from has changed", file=sys.stderr)
        return existing

    partial = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        clock = Clock(f"{component} {precision}")
        measured = _export(variant, component, precision, partial, checkpoint, fused, clock, depth)
        metadata = {
            "variant": variant.name,
            "component": component,
            "precision": precision,
            "opset": OPSET,
            "identity": key,
            "weights": weights_source(weights),
            "loras": applied,
            **measured,
            "versions": versions(),
            "files": describe_files(partial),
            "seconds": clock.seconds,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        (partial / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
        move_into_place(partial, destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return metadata


def export_components(
    variant: Variant,
    names: Sequence[str],
    precision: str,
    folder: Path,
    checkpoint: Path | None = None,
    seeded: bool = False,
    processes: int = 1,
    loras: Sequence[Lora] = (),
    depth: str = "full",
) -> Iterator[dict[str, Any]]:
    """Exports components to `folder`/<component>/, each in a process of its own, and yields their metadata in the given order.

    A process's memory goes back whole, so the peak is that of one component, or of `processes` at a time.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, for all of them
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    arguments = (checkpoint, seeded, tuple(loras), depth)
    with ProcessPoolExecutor(processes, context, max_tasks_per_child=1) as pool:
        futures = [
            pool.submit(_export_in_process, threads, variant, name, precision, folder / name, *arguments) for name in names
        ]
        for name, future in zip(names, futures, strict=True):
            try:
                yield future.result()
            except BrokenProcessPool as error:
                raise ExportError(
                    f"{name}: its process was killed, most likely for want of memory; with --processes several"
                    " components are in memory at once"
                ) from error
            finally:
                if future.exception() is not None:
                    pool.shutdown(cancel_futures=True)


def _export_in_process(threads: int, *arguments: Any) -> dict[str, Any]:
    torch.set_num_threads(threads)
    _give_back_large_buffers()
    return export_component(*arguments)


def _give_back_large_buffers() -> None:
    """Makes glibc map buffers of 1 MiB and more one by one, and so return each when it is freed.

    Left to itself, it raises that limit to 32 MiB with the first large buffer freed, and keeps the smaller ones in a heap that
    only grows: measured on the full-size denoiser, 3.4 GB of 16.3.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)


# ------------------------------------------------------------------------------------------------------------- the steps
def _export(
    variant: Variant,
    component: str,
    precision: str,
    folder: Path,
    checkpoint: Path | None,
    loras: Sequence[Lora],
    clock: Clock,
    depth: str,
) -> dict[str, Any]:
    """Everything between the weights and the files, proven at the given depth. Returns what was found on the way."""
    if depth == "full":
        return _make(variant, component, precision, folder, checkpoint, loras, clock)
    shallow = network(variant, component).shallow
    if shallow is None:
        raise ExportError(
            f"parity depth: '{component}' of variant '{variant.name}' has no shallow form; leave out --parity-depth"
        )
    proven = shallow(variant)
    with tempfile.TemporaryDirectory(dir=folder.parent, suffix=".partial") as scratch:
        proof = _make(proven, component, precision, Path(scratch), checkpoint, (), clock, subset=True)
    made = _make(variant, component, precision, folder, checkpoint, loras, clock, prove=False)
    return {**made, "parity": {**proof["parity"], "proven_on": proven.name}}


def _make(
    variant: Variant,
    component: str,
    precision: str,
    folder: Path,
    checkpoint: Path | None,
    loras: Sequence[Lora],
    clock: Clock,
    prove: bool = True,
    subset: bool = False,
) -> dict[str, Any]:
    signature = components(variant)[component]
    limits = traced_bounds(variant)[component]
    row = network(variant, component)
    cases = parity.cases(variant, signature, limits) if prove else []

    with clock.phase("weights"):
        module = build(variant, component, checkpoint, loras, subset)
    parameters = sum(tensor.numel() for tensor in module.state_dict().values())
    what = f"component '{component}' of variant '{variant.name}'"
    require_disk(what, parameters * BYTES[precision], folder)
    with clock.phase("reference"):
        run = parity.torch_run(module, signature)
        references = [(case, run(case.inputs)) for case in cases]
    findings: list[parity.Finding] = []
    if precision != "fp32":
        with clock.phase("conversion"):
            if row.fit_half is not None:
                row.fit_half(module, [_tensors(signature, case.inputs) for case in cases])
            to_half(module, row.fp32)
            # ONNX Runtime's CPU provider computes FP16 graphs in FP32, so overflow and rounding show only here.
            findings += parity.compare("torch fp16", run, signature, references)
            if prove:
                parity.require(findings, component, "fp16", row.tolerance["fp16"])
    fp32_count = fp32_products(module)
    notes: Any = module.notes

    with clock.phase("trace"):
        model = trace(module, variant, signature, limits)
        traced = list(model.graph.initializers.values())
    with clock.phase("graph"):
        graph.defer_weights(model, deferred_parameters(module))
        graph.clean(model)
        if precision == "int8w":
            notes["int8"] = quantize(model, row.keep_8bit)
        graph.conform(model, signature)
    with clock.phase("files"):
        graph.save(model, folder)
        graph.verify_file(folder / graph.MODEL, signature)
        report = precision_report(folder / graph.MODEL)
        check_precision(report, precision, fp32_count)
    # torch's exporter keeps what it last traced, and with it the weights.
    for value in (*traced, *model.graph.initializers.values()):
        value.const_value = None
    del module, model, run
    gc.collect()

    if prove:
        with clock.phase("parity"):
            run = parity.onnx_run(folder / graph.MODEL, signature)
            findings += parity.compare("onnxruntime", run, signature, references)
            findings += parity.compare_alone(run, signature, cases[-1])
            parity.require(findings, component, precision, row.tolerance[precision])
    return {
        "parameters": parameters,
        "notes": notes,
        "operators": report,
        "parity": {"tolerance": row.tolerance[precision], "findings": parity.summary(findings)},
    }


def trace(module: nn.Module, variant: Variant, signature: Signature, limits: Bounds) -> Any:
    """The module as an ONNX IR model, every named axis symbolic within its bounds."""
    of = multiples(variant)
    sizes = _trace_sizes(limits, of)
    example = _tensors(signature, example_inputs(variant, signature, sizes, salt="trace"))
    axes = {axis: _dimension(axis, bound, of.get(axis, 1)) for axis, bound in limits.items()}
    shapes = tuple({i: axes[axis] for i, axis in tensor.dynamic_axes.items()} for tensor in signature.inputs)
    with torch.no_grad(), _quiet():
        program = torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[tensor.name for tensor in signature.inputs],
            output_names=[tensor.name for tensor in signature.outputs],
            optimize=False,  # graph.clean does it, in an order that takes seconds instead of minutes
            verbose=False,
        )
    assert exported is not None
    return exported.model


def _dimension(axis: str, bound: Range, multiple: int) -> Any:
    """A symbolic size within its bounds; one that comes in multiples is a product, so that halves of it are whole."""
    if multiple == 1:
        return torch.export.Dim(axis, min=bound.min, max=bound.max)
    return multiple * torch.export.Dim(f"{axis}_part", min=bound.min // multiple, max=bound.max // multiple)


def _trace_sizes(limits: Bounds, multiples: Mapping[str, int]) -> dict[str, int]:
    """A size for every axis, each of its own and none of them 1, so that no two axes are taken for one and none for broadcasting."""
    sizes: dict[str, int] = {}
    for axis, (low, _, high) in limits.items():
        multiple = multiples.get(axis, 1)
        size = max(low, 2 * multiple)
        while size in sizes.values():
            size += multiple
        if size > high:
            raise ExportError(f"axis '{axis}': no size from {low} to {high} is left that no other axis of the trace has")
        sizes[axis] = size
    return sizes


def _tensors(signature: Signature, arrays: parity.Arrays) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(arrays[tensor.name]) for tensor in signature.inputs)


def traced_bounds(variant: Variant) -> dict[str, Bounds]:
    """The widest bounds of any placement: the graph serves them all. An axis that requests give one size only is traced, and proven,
    over more: a symbolic size cannot be a single one, and a graph of fixed size would be another kind of graph."""
    widest = bounds(variant, max(placement.denoiser_rows for placement in placements(variant).values()))

    def traceable(size: Range) -> Range:
        return size if size.min < size.max else Range(size.min, size.opt, 2 * size.max)

    return {component: {axis: traceable(size) for axis, size in axes.items()} for component, axes in widest.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporter's remarks about operators that no network here uses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
