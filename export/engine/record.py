"""What is written beside a plan, and what follows from it: rebuild or keep, load or refuse.

A plan is for one version of one TensorRT, and for one GPU or a list of compute capabilities. Loaded elsewhere it fails late and
obscurely, or runs badly, so this module answers first, in words. Knows files and comparisons; imports neither TensorRT nor CUDA.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from faceclip_serving.contract.placements import ONNX_FILE, PLAN_FILE, TENSORRT, Execution, Placement
from faceclip_serving.contract.tensors import Range
from faceclip_serving.contract.variants.variant import Variant

from ..checkpoint.digests import sha256
from .errors import EngineError
from .options import Options
from .shapes import ALL_SIZES, Sizes, bounds_from, engine_bounds, narrower

RECORD = f"{PLAN_FILE}.json"
"""Begins with the plan's name, so that it goes where the plan goes."""
LOG = "build.log"
_FORMAT = 2


@dataclass(frozen=True)
class Machine:
    """Where a plan is built or loaded. Without a card only the version is known."""

    tensorrt: str
    """Version of the runtime's package, e.g. `10.13.3.9`."""
    gpu: str = ""
    """The driver's name for it, e.g. `NVIDIA H200`."""
    compute_capability: str = ""
    """e.g. `9.0`."""
    driver: str = ""
    """Version of the driver. Recorded, not compared: newer drivers run older plans."""


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
    sizes: Sizes = ALL_SIZES
    """The choice of pictures that `bounds` follow from: --size, --static or --largest."""
    runtime: str = TENSORRT.name
    """Name of the runtime that the plan is for."""
    sm: tuple[int, ...] = ()
    """Compute capabilities that it was compiled for, e.g. 89 for 8.9; empty: the GPU that it was built on."""


@dataclass(frozen=True)
class Purpose:
    """What a plan is to serve: a component of a variant, as a placement calls it."""

    variant: Variant
    placement: Placement
    component: str

    @property
    def execution(self) -> Execution:
        return self.placement.components[self.component]

    @property
    def precision(self) -> str:
        return self.execution.precision

    @property
    def command(self) -> str:
        """The one that builds such a plan."""
        chosen = f" --runtime {self.placement.plans_on}" if self.placement.plans_on else ""
        where = f"--variant {self.variant.name} --placement {self.placement.name}{chosen}"
        return f"python -m export engine {where} --component {self.component}"

    def bounds(self, sizes: Sizes = ALL_SIZES) -> dict[str, Range]:
        """What the placement asks of it, for the chosen pictures. Raises `EngineError` for sizes that no request can have."""
        narrowed = self.placement.narrowed(self.variant)
        return engine_bounds(narrowed, self.component, self.placement.denoiser_rows, sizes, self.placement.vae_tile)


@dataclass(frozen=True)
class Measured:
    """What a build took, and what the plan needs as its compiler's log has it; None where that does not say."""

    seconds: float
    peak_host_bytes: int | None = None
    """Largest resident memory of the process that built it."""
    activation_bytes: int | None = None
    """On the card, for the largest shapes."""
    scratch_bytes: int | None = None
    """The largest that a single kernel asks for; part of the activations."""
    weight_bytes: int | None = None
    factors: Mapping[str, int] = field(default_factory=dict)
    """As TensorRT for RTX tells it, see `log_layers.Products`; empty where the log lists no layers."""
    unfolded: int = 0
    unfolded_bytes: int = 0


@dataclass(frozen=True)
class Record:
    recipe: Recipe
    machine: Machine
    plan_bytes: int
    plan_sha256: str
    measured: Measured

    def write(self, folder: Path) -> None:
        (folder / RECORD).write_text(json.dumps({"format": _FORMAT, **asdict(self)}, indent=2) + "\n")


def onnx_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the graph and of its weights' file. Raises `EngineError` where there is no graph."""
    require_onnx(folder)
    return {path.name: sha256(path) for path in sorted(folder.glob(f"{ONNX_FILE}*"))}


def require_onnx(folder: Path) -> None:
    """Raises `EngineError` where there is no graph."""
    if not (folder / ONNX_FILE).exists():
        raise EngineError(
            f"expected {folder / ONNX_FILE}; make it with `python -m export onnx`, --variant and --placement as here"
        )


def read_record(folder: Path) -> Record | None:
    """The record beside a plan; None where there is none that this code can read."""
    try:
        document = json.loads((folder / RECORD).read_text())
        if document.pop("format") != _FORMAT:
            return None
        recipe: dict[str, Any] = document.pop("recipe")
        options = Options(**recipe.pop("options"))
        sizes = Sizes.read(recipe.pop("sizes"))
        sm = tuple(recipe.pop("sm"))
        machine, measured = Machine(**document.pop("machine")), Measured(**document.pop("measured"))
        return Record(Recipe(**recipe, options=options, sizes=sizes, sm=sm), machine, measured=measured, **document)
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


def reasons_to_build(folder: Path, recipe: Recipe, machine: Machine) -> list[str]:
    """Why the plan of `folder` must be built (again), in words; empty where it is up to date. Reads all of the plan.

    A plan for more compute capabilities than those of `recipe` is one for these as well.
    """
    record = read_record(folder)
    if record is None or not (folder / PLAN_FILE).exists():
        return ["there is no plan yet"]
    if (folder / PLAN_FILE).stat().st_size != record.plan_bytes:
        return [f"{PLAN_FILE} is incomplete"]
    if sha256(folder / PLAN_FILE) != record.plan_sha256:
        return [f"{PLAN_FILE} is not the one that {RECORD} tells of"]
    if covers(record.recipe.sm, recipe.sm):
        recipe = replace(recipe, sm=record.recipe.sm)
    before, after = asdict(record.recipe), asdict(recipe)
    reasons = [f"{key} changed from {before[key]} to {after[key]}" for key in after if before[key] != after[key]]
    machines = [("TensorRT", record.machine.tensorrt, machine.tensorrt)]
    if not recipe.sm:
        machines += [
            ("GPU", record.machine.gpu, machine.gpu),
            ("compute capability", record.machine.compute_capability, machine.compute_capability),
        ]
    reasons += [f"{name} changed from {was} to {is_now}" for name, was, is_now in machines if was != is_now]
    return reasons


def check_plan(
    folder: Path, purpose: Purpose, machine: Machine | None = None, for_triton: bool = False, whole: bool = False
) -> Record:
    """The record of a plan that may be loaded for `purpose`. Raises `EngineError` that says what does not fit and what to do.

    `machine`: where it is about to be loaded; None where that is not known, and then only files are checked. `for_triton`: by
    the server. `whole`: also read all of the plan, and of the ONNX file where one is beside it, and compare checksums.
    """
    path = folder / PLAN_FILE
    record = read_record(folder)
    rebuild = f"build it here with `{purpose.command}`"
    if not path.exists():
        raise EngineError(f"expected {path}; {rebuild}")
    if record is None:
        raise EngineError(f"{path}: expected {RECORD} beside it, which says what it was built for; {rebuild}")
    if path.stat().st_size != record.plan_bytes:
        raise EngineError(f"{path}: expected {record.plan_bytes} bytes, got {path.stat().st_size}: copied in part? copy again")
    if whole and sha256(path) != record.plan_sha256:
        raise EngineError(f"{path}: its SHA-256 is not the one in {RECORD}: copy again, or {rebuild}")
    misuse = unfit(record.recipe, purpose)
    if misuse:
        raise EngineError(f"{path}: {misuse}; {rebuild}")
    if whole and (folder / ONNX_FILE).exists() and onnx_digests(folder) != record.recipe.onnx:
        raise EngineError(
            f"{path}: expected a plan of the {ONNX_FILE} beside it, {RECORD} says that it was built from another; {rebuild}"
        )
    if for_triton and purpose.execution.runtime.backend != "python" and not record.recipe.options.for_triton:
        raise EngineError(
            f"{path} was built with --stripped or --weight-streaming: Triton's TensorRT backend neither refits a plan nor sets a"
            " streaming budget; build it without these"
        )
    if machine is not None:
        misfit = incompatibility(record, machine)
        if misfit:
            raise EngineError(f"{path}: {misfit}; {rebuild}")
    return record


def unfit(recipe: Recipe, purpose: Purpose) -> str | None:
    """Why a plan of this recipe cannot serve `purpose`, in words, or None.

    Where it was built for chosen pictures, it must serve those as the placement calls them; larger ones fail when they are asked for.
    """
    for what, expected, found in (
        ("variant", purpose.variant.name, recipe.variant),
        ("component", purpose.component, recipe.component),
        ("precision", purpose.precision, recipe.precision),
        ("runtime", purpose.execution.runtime.name, recipe.runtime),
    ):
        if expected != found:
            return f"expected a plan of {what} {expected}, {RECORD} says {found}"
    if purpose.execution.weights_on_card_bytes is not None and not recipe.options.weight_streaming:
        return f"placement '{purpose.placement.name}' streams its weights, and it was built without --weight-streaming"
    try:
        needed = purpose.bounds(recipe.sizes)
    except EngineError as error:
        return f"{RECORD} says that it is for pictures which placement '{purpose.placement.name}' does not serve: {error}"
    missing = sorted(needed.keys() - recipe.bounds.keys())
    short = narrower(bounds_from(recipe.bounds), needed) | dict.fromkeys(missing, "plan without it")
    if short:
        axes = "; ".join(f"{axis}: {text}" for axis, text in short.items())
        return f"takes less than placement '{purpose.placement.name}' asks of it ({axes}), by {RECORD}"
    return None


def incompatibility(record: Record, here: Machine) -> str | None:
    """Why a plan cannot be loaded `here`, in words, or None."""
    built = record.machine
    if built.tensorrt != here.tensorrt:
        return f"was built by TensorRT {built.tensorrt}, here is {here.tensorrt}: a plan loads only in the version that made it"
    hardware, sm = record.recipe.options.hardware, record.recipe.sm
    if sm:
        if here.gpu and sm_of(here.compute_capability) not in sm:
            return f"was compiled for SM {', '.join(map(str, sm))}, here is a {here.gpu} of compute capability {here.compute_capability}"
    elif hardware == "ampere-plus":
        if sm_of(here.compute_capability) < 80:
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


def covers(compiled: Collection[int], wanted: Collection[int]) -> bool:
    """Whether a plan for the compute capabilities `compiled` runs on all that are `wanted`; empty: built on one GPU, for it."""
    return set(wanted) <= set(compiled) if wanted and compiled else not wanted and not compiled


def sm_of(compute_capability: str) -> int:
    """`8.9` -> 89. Raises `EngineError` for what is none, such as the `[N/A]` of a driver that does not know."""
    found = re.fullmatch(r"(\d+)\.(\d)", compute_capability)
    if found is None:
        raise EngineError(f"compute capability: expected one like 8.9, the driver says '{compute_capability}'; update it")
    return int(found[1]) * 10 + int(found[2])
