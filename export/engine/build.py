"""ONNX -> `model.plan` beside it, with the record that says what it was built for, and the build log.

The order: what is wanted (`Recipe`), what is there, and only then TensorRT. A plan appears complete or not at all; the record is
written last. Knows the steps; shapes, options, records and TensorRT each have a module of their own.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from faceclip_serving.contract.placements import ONNX_FILE, PLACEMENT_NAMES, PLAN_FILE, Placement, placement_of, placements
from faceclip_serving.contract.signatures import COMPONENTS, components
from faceclip_serving.contract.tensors import Bounds
from faceclip_serving.contract.variant import Variant
from faceclip_serving.contract.variants import VARIANTS

from ..checkpoint.digests import sha256
from ..commandline import add_components, add_variant
from ..onnx.record import METADATA
from ..outputs import replacing
from ..paths import TIMING, onnx_folder
from . import options as engine_options
from . import tensorrt as engine_tensorrt
from .device import open_device
from .errors import EngineError
from .operators import check_operators
from .options import Options
from .progress import Progress
from .record import LOG, RECORD, Machine, Purpose, Recipe, Record, check_plan, onnx_digests, read_record, reasons_to_build
from .shapes import ALL_SIZES, Sizes, bounds_document, parse_size, shape_ranges


def this_machine() -> Machine:
    """TensorRT and GPU of this process. Raises `EngineError` where one of them is missing."""
    version = engine_tensorrt.version()
    device = open_device()
    return Machine(version, device.name, device.compute_capability, device.driver)


def build_engine(
    variant: Variant,
    component: str,
    precision: str,
    folder: Path,
    limits: Bounds,
    options: Options,
    machine: Machine,
    sizes: Sizes = ALL_SIZES,
) -> tuple[Record, bool]:
    """Builds the plan of a component whose ONNX lies in `folder`, unless it is up to date. Returns its record, and whether built.

    `sizes`: the choice that `limits` follow from.
    """
    recipe = Recipe(variant.name, component, precision, onnx_digests(folder), bounds_document(limits), options, sizes)
    reasons = reasons_to_build(folder, recipe, machine)
    before = read_record(folder)
    if before is not None and not reasons:
        print(f"{component} {precision}: kept, nothing it is made from has changed", file=sys.stderr)
        return before, False
    require_own_plan(folder)
    print(f"{component} {precision}: building: {'; '.join(reasons)}", file=sys.stderr)
    check_operators(folder / ONNX_FILE)
    shapes = shape_ranges(components(variant)[component], limits)
    cache = timing_cache(machine)
    progress = Progress(component)
    started = time.monotonic()
    with (folder / LOG).open("w") as log:
        try:
            known = cache.read_bytes() if cache.exists() else b""
            built = engine_tensorrt.build(folder / ONNX_FILE, shapes, options, known, log, progress)
        except EngineError as error:
            log.flush()
            raise EngineError(f"{error}{last_error(folder / LOG)}") from None
        finally:
            progress.close()
    _write(cache, built.timing_cache)
    return _finish(folder, built.plan, recipe, machine, time.monotonic() - started), True


def refit_engine(base: Path, folder: Path, purpose: Purpose, machine: Machine) -> Record:
    """The plan of `base`, built with --refit or --stripped, with the weights of the ONNX file in `folder`, written to `folder`.

    Seconds instead of a build, for weights that changed in value only, as a fused LoRA's. The graphs must be the same file.
    """
    record = check_plan(base, purpose, machine)
    require_own_plan(folder)
    digests = onnx_digests(folder)
    options = record.recipe.options
    if not (options.refit or options.stripped):
        raise EngineError(f"{base / PLAN_FILE}: expected a plan built with --refit or --stripped, to put weights into")
    if digests[ONNX_FILE] != record.recipe.onnx.get(ONNX_FILE):
        raise EngineError(
            f"{folder / ONNX_FILE}: expected the very graph that {base / PLAN_FILE} was built from, with other weights; this one differs in"
            " itself: build its plan without --refit-from"
        )
    if not options.refit and digests != record.recipe.onnx:
        raise EngineError(
            f"{folder}: {base / PLAN_FILE} was stripped of these very weights and takes no others; build it with --stripped --refit"
        )
    started = time.monotonic()
    with (folder / LOG).open("w") as log:
        plan = engine_tensorrt.refit((base / PLAN_FILE).read_bytes(), folder / ONNX_FILE, log)
    # Its weights are in and it is a finished plan now: whether it can be refitted again differs between TensorRT's versions.
    finished = replace(options, refit=False, stripped=False)
    recipe = replace(record.recipe, onnx=digests, options=finished)
    return _finish(folder, plan, recipe, machine, time.monotonic() - started)


def require_own_plan(folder: Path) -> None:
    """Raises `EngineError` where a plan or a build log lies beside an ONNX file, and neither the one nor the other was made here."""
    ours = (METADATA, RECORD)
    found = [name for name in (PLAN_FILE, LOG) if (folder / name).exists()]
    if found and not any((folder / name).is_file() for name in ours):
        raise EngineError(
            f"{folder}: has {' and '.join(found)} that this command did not make (no {' or '.join(ours)} beside it); move it away, or"
            " give --components another folder"
        )


def timing_cache(machine: Machine) -> Path:
    """One file per GPU model and TensorRT version: measurements of another are of no use."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{machine.gpu}-{machine.compute_capability}-tensorrt-{machine.tensorrt}")
    return TIMING / f"{name}.cache"


def last_error(log: Path) -> str:
    """The last line of a build log that reports an error, for a message, with the log's place."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if "ERROR" in line.split(" ")[0]]
    return (f"\n  {lines[-1]}" if lines else "") + f"\n  the whole log: {log}"


def plan_components(placement: Placement) -> list[str]:
    """Components that a placement runs from a plan. Raises `EngineError` where there is none."""
    found = [name for name in COMPONENTS if placement.components[name].runtime.artifact == PLAN_FILE]
    if not found:
        raise EngineError(
            f"placement '{placement.name}': runs no component on TensorRT; choose one of {', '.join(plan_placements())}"
        )
    return found


def plan_placements() -> list[str]:
    """Names of placements, of any variant, that run some component from a plan."""
    found = {
        name
        for variant in VARIANTS.values()
        for name, placement in placements(variant).items()
        if any(execution.runtime.artifact == PLAN_FILE for execution in placement.components.values())
    }
    return [name for name in PLACEMENT_NAMES if name in found]


def _finish(folder: Path, plan: bytes | memoryview, recipe: Recipe, machine: Machine, seconds: float) -> Record:
    _write(folder / PLAN_FILE, plan)
    size = (folder / PLAN_FILE).stat().st_size
    record = Record(recipe, machine, size, sha256(folder / PLAN_FILE), round(seconds, 1))
    record.write(folder)
    return record


def _write(path: Path, content: bytes | memoryview) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(content)


# ---------------------------------------------------------------------------------------------------------------- command
def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    size = parser.add_mutually_exclusive_group()
    metavar = "HEIGHTxWIDTH"
    size.add_argument("--size", type=parse_size, metavar=metavar, help="only this picture size, any batch; faster")
    size.add_argument(
        "--static", type=parse_size, metavar=metavar, help="only this size and the usual batch; fastest, one shape"
    )
    size.add_argument("--largest", type=parse_size, metavar=metavar, help="upper ends of height and width; saves GPU memory")
    parser.add_argument(
        "--refit-from",
        type=Path,
        metavar="DIR",
        help="exchange the weights of the plans in DIR/<precision>/<component>/ instead",
    )
    engine_options.add_arguments(parser)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Which plans: the arguments that `engine`, `verify` and `inspect` share."""
    add_variant(parser)
    parser.add_argument("--placement", "--profile", choices=plan_placements(), default=plan_placements()[-1])
    parser.add_argument("--component", choices=COMPONENTS, action="append", help="only this one; may be repeated")
    add_components(parser, "root of the ONNX files")


def purpose_of(args: argparse.Namespace, component: str) -> Purpose:
    """What the plan of a component is to serve."""
    variant = VARIANTS[args.variant]
    return Purpose(variant, placement_of(variant, args.placement), component)


def selected(args: argparse.Namespace) -> list[tuple[str, str, Path]]:
    """(component, precision, folder) of every chosen plan."""
    placement = placement_of(VARIANTS[args.variant], args.placement)
    found = plan_components(placement)
    names: Sequence[str] = args.component or found
    elsewhere = sorted(set(names) - set(found))
    if elsewhere:
        raise EngineError(
            f"placement '{placement.name}' runs {', '.join(elsewhere)} without TensorRT; it has plans of {', '.join(found)}"
        )
    folders = all_folders(args)
    return [(name, placement.components[name].precision, folders[name]) for name in names]


def all_folders(args: argparse.Namespace) -> dict[str, Path]:
    """Component -> the folder of its ONNX file and plan, for every component of the placement."""
    placement = placement_of(VARIANTS[args.variant], args.placement)
    root: Path = args.components or onnx_folder(VARIANTS[args.variant])
    return {name: root / execution.precision / name for name, execution in placement.components.items()}


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    options = engine_options.from_arguments(args)
    sizes = Sizes(only=args.static or args.size, largest=args.largest, static=args.static is not None)
    chosen = selected(args)
    purposes = {name: purpose_of(args, name) for name, _, _ in chosen}
    limits = {name: purpose.bounds(sizes) for name, purpose in purposes.items()}
    for _, _, folder in chosen:
        if not (folder / ONNX_FILE).exists():
            raise EngineError(
                f"expected {folder / ONNX_FILE}; make it with `python -m export onnx --variant {variant.name}"
                f" --precision {folder.parent.name}`"
            )
    machine = this_machine()
    documents = []
    for component, precision, folder in chosen:
        built = True
        if args.refit_from is not None:
            record = refit_engine(args.refit_from / precision / component, folder, purposes[component], machine)
        else:
            record, built = build_engine(variant, component, precision, folder, limits[component], options, machine, sizes)
        documents.append(
            {
                "component": component,
                "plan": str(folder / PLAN_FILE),
                "built": built,
                "bytes": record.plan_bytes,
                "seconds": record.seconds,
                "bounds": record.recipe.bounds,
            }
        )
    found = {"variant": variant.name, "placement": args.placement, "gpu": machine.gpu, "tensorrt": machine.tensorrt}
    print(json.dumps({**found, "engines": documents}))
    return 0
