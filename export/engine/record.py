"""What is written beside a plan, and what follows from it: rebuild or keep, load or refuse.

A plan is native code for one GPU and one TensorRT. Loaded elsewhere it fails late and obscurely, or runs badly, so this module
answers first, in words. Knows files and comparisons; imports neither TensorRT nor CUDA.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faceclip_serving.contract.placements import ONNX_FILE, PLAN_FILE

from ..checkpoint.digests import sha256
from .errors import EngineError
from .options import Options

RECORD = f"{PLAN_FILE}.json"
"""Begins with the plan's name, so that it goes where the plan goes."""
LOG = "build.log"
_FORMAT = 1


@dataclass(frozen=True)
class Machine:
    """Where a plan is built or loaded."""

    tensorrt: str
    """e.g. `10.13.3.9`."""
    gpu: str
    """The driver's name for it, e.g. `NVIDIA H200`."""
    compute_capability: str
    """e.g. `9.0`."""
    cuda_driver: str
    """Newest CUDA that the driver runs, e.g. `13.0`. Recorded, not compared: drivers run older plans."""


@dataclass(frozen=True)
class Recipe:
    """All that a plan follows from, but the machine."""

    variant: str
    component: str
    precision: str
    onnx: Mapping[str, str]
    """ONNX file -> SHA-256."""
    bounds: Mapping[str, list[int]]
    """Named axis -> min, opt, max."""
    options: Options


@dataclass(frozen=True)
class Record:
    recipe: Recipe
    machine: Machine
    plan_bytes: int
    plan_sha256: str
    seconds: float
    """Of the build."""

    def write(self, folder: Path) -> None:
        (folder / RECORD).write_text(json.dumps({"format": _FORMAT, **asdict(self)}, indent=2) + "\n")


def onnx_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the graph and of its weights' file. Raises `EngineError` where there is no graph."""
    if not (folder / ONNX_FILE).exists():
        raise EngineError(
            f"expected {folder / ONNX_FILE}; make it with `python -m export onnx`, --variant and --placement as here"
        )
    return {path.name: sha256(path) for path in sorted(folder.glob(f"{ONNX_FILE}*"))}


def read_record(folder: Path) -> Record | None:
    """The record beside a plan; None where there is none that this code can read."""
    try:
        document = json.loads((folder / RECORD).read_text())
        if document.pop("format") != _FORMAT:
            return None
        recipe: dict[str, Any] = document.pop("recipe")
        options = Options(**recipe.pop("options"))
        machine = Machine(**document.pop("machine"))
        return Record(Recipe(**recipe, options=options), machine, **document)
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


def reasons_to_build(folder: Path, recipe: Recipe, machine: Machine) -> list[str]:
    """Why the plan of `folder` must be built (again), in words; empty where it is up to date."""
    record = read_record(folder)
    if record is None or not (folder / PLAN_FILE).exists():
        return ["there is no plan yet"]
    if (folder / PLAN_FILE).stat().st_size != record.plan_bytes:
        return [f"{PLAN_FILE} is incomplete"]
    before, after = asdict(record.recipe), asdict(recipe)
    reasons = [f"{key} changed from {before[key]} to {after[key]}" for key in after if before[key] != after[key]]
    reasons += [
        f"{name} changed from {was} to {is_now}"
        for name, was, is_now in (
            ("TensorRT", record.machine.tensorrt, machine.tensorrt),
            ("GPU", record.machine.gpu, machine.gpu),
            ("compute capability", record.machine.compute_capability, machine.compute_capability),
        )
        if was != is_now
    ]
    return reasons


def check_plan(folder: Path, machine: Machine | None = None, for_triton: bool = False, whole: bool = False) -> Record:
    """The record of a plan that may be loaded. Raises `EngineError` that says what does not fit and what to do.

    `machine`: where it is about to be loaded; None where that is not known, and then only files are checked. `for_triton`: by
    Triton's own backend. `whole`: also read all of the plan and compare its checksum.
    """
    path = folder / PLAN_FILE
    record = read_record(folder)
    rebuild = "build it here with `python -m export engine`, for its variant and placement"
    if not path.exists():
        raise EngineError(f"expected {path}; {rebuild}")
    if record is None:
        raise EngineError(f"{path}: expected {RECORD} beside it, which says what it was built for; {rebuild}")
    if path.stat().st_size != record.plan_bytes:
        raise EngineError(f"{path}: expected {record.plan_bytes} bytes, got {path.stat().st_size}: copied in part? copy again")
    if whole and sha256(path) != record.plan_sha256:
        raise EngineError(f"{path}: its SHA-256 is not the one in {RECORD}: copy again, or {rebuild}")
    if for_triton and not record.recipe.options.for_triton:
        raise EngineError(
            f"{path} was built with --stripped or --weight-streaming: Triton's TensorRT backend neither refits a plan nor sets a"
            " streaming budget; build it without these"
        )
    if machine is not None:
        misfit = incompatibility(record, machine)
        if misfit:
            raise EngineError(f"{path}: {misfit}; {rebuild}")
    return record


def incompatibility(record: Record, here: Machine) -> str | None:
    """Why a plan cannot be loaded `here`, in words, or None."""
    built = record.machine
    if built.tensorrt != here.tensorrt:
        return f"was built by TensorRT {built.tensorrt}, here is {here.tensorrt}: a plan loads only in the version that made it"
    hardware = record.recipe.options.hardware
    if hardware == "ampere-plus":
        if float(here.compute_capability) < 8.0:
            return f"was built for Ampere and later, here is a {here.gpu} of compute capability {here.compute_capability}"
    elif built.compute_capability != here.compute_capability:
        return (
            f"was built for compute capability {built.compute_capability} ({built.gpu}), here is {here.compute_capability}"
            f" ({here.gpu}): a plan loads only on the architecture it was built on"
        )
    elif hardware == "none" and built.gpu != here.gpu:
        return (
            f"was built on a {built.gpu}, here is a {here.gpu}: the kernels it chose may not fit this card"
            " (--hardware-compatibility same-compute-capability makes plans for both)"
        )
    return None
