"""A component of a variant -> `model.onnx`, its weights, and `metadata.json`, complete and proven or not at all.

The order keeps one form of the weights in memory at a time: FP32 network and its reference outputs, conversion, trace, files,
and only when torch has let go, ONNX Runtime on the files. Knows the steps; each step's knowledge lies in its own module.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import nn

from faceclip_serving.profiles import PROFILES
from faceclip_serving.signatures import bounds, components
from faceclip_serving.tensors import Bounds, Signature
from faceclip_serving.variants import Variant

from . import graph, parity
from .checkpoint import readable_file
from .components import build, network
from .digests import sha256
from .inputs import example_inputs
from .precision import PRECISIONS, check_precision, fp32_products, precision_report, to_half

METADATA = "metadata.json"
OPSET = 21
"""The first with a GroupNormalization that scales channels, which TensorRT's parser reads since 10.9 and ONNX Runtime runs; it
also has LayerNormalization (17), Gelu and GridSample (20) as single operators. Later opsets add operators that TensorRT's parser
does not know, as RMSNormalization (23)."""

_LIBRARIES = ("torch", "diffusers", "onnx", "onnx-ir", "onnxscript", "onnxruntime")
_SOURCES = ("faceclip", "components.py", "graph.py", "inputs.py", "parity.py", "precision.py", "resampling.py", "sdxl.py",
            "to_onnx.py", "vae.py", "weights.py")  # fmt: skip
"""Files of this package that decide what an exported graph computes and how it was proven."""


class ExportError(RuntimeError):
    """A component cannot be exported; the message says why and what to do."""


def export_component(
    variant: Variant,
    component: str,
    precision: str,
    destination: Path,
    checkpoint: Path | None = None,
    seeded: bool = False,
) -> dict[str, Any]:
    """Writes one component to the folder `destination` and returns its metadata.

    `seeded` allows deterministic stand-ins for the weights of a variant that has a checkpoint. What is there already is kept if it
    was made from the same definition, weights, code and libraries. Raises `ExportError`, `ParityError`, `PrecisionError` or
    `GraphError`, and then leaves `destination` as it was.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"precision: expected one of {', '.join(PRECISIONS)}, got '{precision}'")
    if checkpoint is None and not seeded and variant.weights != "seeded":
        raise ExportError(
            f"checkpoint: variant '{variant.name}' has published weights; give the folder that `python -m export download` filled"
            " (--checkpoint), or allow stand-ins that make no pictures (--seeded)"
        )
    identity = _identity(variant, component, precision, checkpoint)
    existing = read_metadata(destination)
    if existing is not None and existing["identity"] == identity and _is_whole(destination, existing):
        print(f"{component} {precision}: kept, nothing it is made from has changed", file=sys.stderr)
        return existing

    partial = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        clock = Clock(f"{component} {precision}")
        measured = _export(variant, component, precision, partial, checkpoint, clock)
        metadata = {
            "variant": variant.name,
            "component": component,
            "precision": precision,
            "opset": OPSET,
            "identity": identity,
            **measured,
            "files": {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(partial.iterdir())},
            "seconds": clock.seconds,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        (partial / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
        _replace(partial, destination)
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
) -> Iterator[dict[str, Any]]:
    """Exports components to `folder`/<component>/, each in a process of its own, and yields their metadata in the given order.

    A process's memory goes back whole, so the peak is that of one component, or of `processes` at a time.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, for all of them
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    arguments = (precision, checkpoint, seeded, threads)
    with ProcessPoolExecutor(processes, context, max_tasks_per_child=1) as pool:
        futures = [pool.submit(_export_in_process, variant, name, folder / name, *arguments) for name in names]
        for name, future in zip(names, futures, strict=True):
            try:
                yield future.result()
            except BrokenProcessPool as error:
                raise ExportError(
                    f"{name}: its process was killed, most likely for want of memory; the full-size denoiser needs about 13 GB,"
                    " and with --processes several components hold their weights at once"
                ) from error
            finally:
                if future.exception() is not None:
                    pool.shutdown(cancel_futures=True)


def _export_in_process(
    variant: Variant, name: str, destination: Path, precision: str, checkpoint: Path | None, seeded: bool, threads: int
) -> dict[str, Any]:
    torch.set_num_threads(threads)
    return export_component(variant, name, precision, destination, checkpoint, seeded)


def read_metadata(folder: Path) -> dict[str, Any] | None:
    """The metadata of an exported component, or None where there is none that can be read."""
    try:
        found = json.loads((folder / METADATA).read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) and {"identity", "files"} <= found.keys() else None


# ------------------------------------------------------------------------------------------------------------- the steps
def _export(
    variant: Variant, component: str, precision: str, folder: Path, checkpoint: Path | None, clock: Clock
) -> dict[str, Any]:
    """Everything between the weights and the proven files. Returns what was found on the way."""
    signature = components(variant)[component]
    limits = _bounds(variant)[component]
    row = network(variant, component)
    cases = parity.cases(variant, signature, limits)

    with clock.phase("weights"):
        module = build(variant, component, checkpoint)
    with clock.phase("reference"):
        run = parity.torch_run(module, signature)
        references = [(case, run(case.inputs)) for case in cases]
    findings: list[parity.Finding] = []
    if precision == "fp16":
        with clock.phase("conversion"):
            if row.fit_half is not None:
                row.fit_half(module, [_tensors(signature, case.inputs) for case in cases])
            to_half(module, row.fp32)
            # ONNX Runtime's CPU provider computes FP16 graphs in FP32, so overflow and rounding show only here.
            findings += parity.compare("torch fp16", run, signature, references)
            parity.require(findings, component, precision, row.tolerance[precision])
    parameters = sum(tensor.numel() for tensor in module.state_dict().values())
    fp32_count, notes = fp32_products(module), module.notes

    with clock.phase("trace"):
        model = trace(module, variant, signature, limits)
    with clock.phase("files"):
        graph.clean(model)
        graph.conform(model, signature)
        graph.save(model, folder)
        graph.verify_file(folder / graph.MODEL, signature)
        report = precision_report(folder / graph.MODEL)
        check_precision(report, precision, fp32_count)
    del module, model, run
    gc.collect()

    with clock.phase("parity"):
        run = parity.onnx_run(folder / graph.MODEL, signature)
        findings += parity.compare("onnxruntime", run, signature, references)
        findings += parity.compare_alone(run, signature, cases[-1])
        parity.require(findings, component, precision, row.tolerance[precision])
    return {
        "weights": _weights(variant, component, checkpoint),
        "parameters": parameters,
        "notes": notes,
        "operators": report,
        "parity": {"tolerance": row.tolerance[precision], "findings": parity.summary(findings)},
        "versions": {name: version(name) for name in _LIBRARIES},
    }


def trace(module: nn.Module, variant: Variant, signature: Signature, limits: Bounds) -> Any:
    """The module as an ONNX IR model, every named axis symbolic within its bounds."""
    sizes = _trace_sizes(limits)
    example = _tensors(signature, example_inputs(variant, signature, sizes, salt="trace"))
    axes = {axis: torch.export.Dim(axis, min=low, max=high) for axis, (low, _, high) in limits.items()}
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


def _trace_sizes(limits: Bounds) -> dict[str, int]:
    """A size for every axis, each of its own and none of them 1, so that no two axes are taken for one and none for broadcasting."""
    sizes: dict[str, int] = {}
    for axis, (low, _, high) in limits.items():
        size = max(low, 2)
        while size in sizes.values():
            size += 1
        if size > high:
            raise ExportError(f"axis '{axis}': no size from {low} to {high} is left that no other axis of the trace has")
        sizes[axis] = size
    return sizes


def _tensors(signature: Signature, arrays: parity.Arrays) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(arrays[tensor.name]) for tensor in signature.inputs)


def _bounds(variant: Variant) -> dict[str, Bounds]:
    """The widest bounds of any profile: the graph serves them all."""
    return bounds(variant, max(profile.denoiser_rows for profile in PROFILES.values()))


# ------------------------------------------------------------------------------------------------------- identity, files
def _identity(variant: Variant, component: str, precision: str, checkpoint: Path | None) -> str:
    """SHA-256 of all that an exported component follows from."""
    signature = components(variant)[component]
    definition = [variant.architecture, variant.tokens, signature, _bounds(variant)[component], component, precision, OPSET]
    weights = [] if checkpoint is None else [_file_state(readable_file(checkpoint, network(variant, component).part))]
    here = Path(__file__).parent
    sources = sorted(
        file for name in _SOURCES for file in ((here / name).rglob("*.py") if (here / name).is_dir() else [here / name])
    )
    parts = [
        *map(repr, definition),
        *map(repr, weights),
        *(f"{name} {version(name)}" for name in _LIBRARIES),
        *(sha256(file) for file in sources),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _weights(variant: Variant, component: str, checkpoint: Path | None) -> dict[str, object]:
    if checkpoint is None:
        return {"source": "seeded"}
    name, size, _ = _file_state(readable_file(checkpoint, network(variant, component).part))
    return {"source": "checkpoint", "file": name, "bytes": size}


def _file_state(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return path.name, found.st_size, found.st_mtime_ns


def _is_whole(folder: Path, metadata: dict[str, Any]) -> bool:
    files = ((folder / name, entry["bytes"]) for name, entry in metadata["files"].items())
    return all(path.is_file() and path.stat().st_size == size for path, size in files)


def _replace(partial: Path, destination: Path) -> None:
    """Moves a finished folder into place; the one that was there goes only when the new one is complete."""
    old = destination.with_name(f".{destination.name}.{os.getpid()}.old")
    if destination.exists():
        destination.replace(old)
    partial.replace(destination)
    shutil.rmtree(old, ignore_errors=True)


class Clock:
    """Tells what is going on, with the time since the start, and keeps how long each phase took."""

    def __init__(self, owner: str) -> None:
        self.owner, self.seconds = owner, dict[str, float]()
        self._start = time.monotonic()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        print(f"[{begin - self._start:6.1f} s] {self.owner}: {name}", file=sys.stderr, flush=True)
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - begin, 2)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporter's remarks about operators that no network here uses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
