"""ONNX -> `model.plan` beside it, with the record that says what it was built for, and the build log.

TensorRT for RTX compiles for a list of compute capabilities (--sm), on any machine; TensorRT proper builds on the GPU that will serve.
The order: what is wanted (`Recipe`), what is there, and only then the compiler, in a process of its own for each plan. A plan appears
complete or not at all; the record is written last. Knows the steps; shapes, options, records and TensorRT each have a module.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faceclip_serving.contract.components import components
from faceclip_serving.contract.names import COMPONENTS
from faceclip_serving.contract.placements import (
    ONNX_FILE,
    PLACEMENT_NAMES,
    PLAN_FILE,
    TRT_RTX,
    Placement,
    Runtime,
    placement_of,
    placements,
)
from faceclip_serving.contract.tensors import Bounds
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant
from faceclip_serving.models.tensorrt_package import PackageError, find_card, use

from ..checkpoint.digests import sha256
from ..commandline import add_components, add_runtime, add_variant
from ..onnx.record import METADATA
from ..onnx.wanted import PRECISIONS
from ..outputs import replacing
from ..paths import TIMING, onnx_folder
from . import options as engine_options
from .agreement import verify_file
from .apart import ProcessDied, apart
from .errors import EngineError
from .options import NO_OPTIONS, Options
from .record import (
    LOG,
    RECORD,
    Machine,
    Measured,
    Purpose,
    Recipe,
    Record,
    check_plan,
    covers,
    onnx_digests,
    read_record,
    reasons_to_build,
    sm_of,
)
from .shapes import ALL_SIZES, Sizes, bounds_document, bounds_from, parse_size, shape_ranges

if TYPE_CHECKING:
    from .tensorrt import Work  # at run time inside functions, once the package is chosen


@dataclass(frozen=True)
class Target:
    """What plans are built for."""

    runtime: Runtime
    machine: Machine
    sm: tuple[int, ...] = ()
    """Compute capabilities; empty: the card of `machine`."""
    gpu: int = 0
    """That card's number."""

    @property
    def label(self) -> str:
        """Package and version, e.g. `tensorrt-rtx 1.7.1.116`."""
        return f"{self.runtime.package.replace('_', '-')} {self.machine.tensorrt}"


def this_machine(runtime: Runtime, gpu: int = 0) -> Machine:
    """The runtime's TensorRT and a card, as nvidia-smi numbers it. Raises `PackageError` where one that is needed is missing."""
    version = use(runtime)
    try:
        card = find_card(gpu)
    except PackageError:
        if runtime.ahead_of_time:
            return Machine(version)
        raise
    return Machine(version, card.name, card.capability, card.driver)


def target_of(runtime: Runtime, sm: Sequence[int] = (), gpu: int = 0) -> Target:
    """The target on this machine. `sm`: for which compute capabilities, where the runtime compiles for some; else those of card `gpu`."""
    machine = this_machine(runtime, gpu)
    if not runtime.ahead_of_time:
        if sm:
            raise EngineError(
                f"sm: runtime '{runtime.name}' builds for the GPU that is here; leave --sm out, or choose `--runtime {TRT_RTX.name}`"
            )
        return Target(runtime, machine, gpu=gpu)
    if not sm and not machine.gpu:
        raise EngineError(
            "sm: no NVIDIA card here to build for; say for which, e.g. --sm 75,86,89,120 for RTX 20, 30, 40 and 50"
        )
    from .tensorrt import compute_capabilities

    wanted, known = sorted(set(sm or [sm_of(machine.compute_capability)])), compute_capabilities()
    if not set(wanted) <= set(known):
        raise EngineError(
            f"sm: {runtime.package} {machine.tensorrt} compiles for {', '.join(map(str, known))}, got {', '.join(map(str, wanted))};"
            " other cards need `--runtime tensorrt`, on the card"
        )
    return Target(runtime, machine, tuple(wanted), gpu)


def build_engine(
    variant: Variant,
    component: str,
    precision: str,
    folder: Path,
    limits: Bounds,
    options: Options,
    target: Target,
    sizes: Sizes = ALL_SIZES,
    check: Callable[[Path], object] | None = None,
) -> tuple[Record, bool]:
    """Builds the plan of a component whose ONNX lies in `folder`, unless it is up to date. Returns its record, and whether built.

    `sizes`: the choice that `limits` follow from. `check`: is called with the plan before it is kept, and may raise.
    """
    options.require_for(target.runtime)
    bounds = bounds_document(limits)
    recipe = Recipe(
        variant.name, component, precision, onnx_digests(folder), bounds, options, sizes, target.runtime.name, target.sm
    )
    reasons = reasons_to_build(folder, recipe, target.machine)
    before = read_record(folder)
    if before is not None and not reasons:
        print(f"{component} {precision}: kept, nothing it is made from has changed", file=sys.stderr)
        return before, False
    require_own_plan(folder)
    print(f"{component} {precision}: building: {'; '.join(reasons)}", file=sys.stderr)
    from .tensorrt import Work

    signature = components(variant)[component]
    shapes = shape_ranges(signature, limits)
    cache = timing_cache(target.machine)
    if not target.runtime.ahead_of_time:
        cache.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder / PLAN_FILE) as unproven:
        work = Work(
            folder / ONNX_FILE, unproven, folder / LOG, signature, shapes, options, target.runtime, target.sm, cache, target.gpu
        )
        measured = build_apart(work)
        if check is not None:
            check(unproven)
    return _finish(folder, recipe, target.machine, measured), True


def build_for(
    purpose: Purpose, folder: Path, target: Target, options: Options = NO_OPTIONS, sizes: Sizes = ALL_SIZES
) -> tuple[Record, bool]:
    """The plan that serves a purpose: as `build_engine`, with what the placement asks for."""
    streams = options.weight_streaming or purpose.execution.weights_on_card_bytes is not None
    wanted = replace(options, weight_streaming=streams)
    variant, component, limits = purpose.variant, purpose.component, purpose.bounds(sizes)
    # TensorRT 11.3 says of itself that a plan which can be refitted may compute something else. Without weights it cannot run.
    proven = options.refit and not options.stripped
    check = partial(verify_file, purpose, onnx=folder / ONNX_FILE, limits=limits) if proven else None
    return build_engine(variant, component, purpose.precision, folder, limits, wanted, target, sizes, check)


def build_unfit(purpose: Purpose, folder: Path, target: Target) -> tuple[Record, bool]:
    """The plan that serves a purpose on the target, built if none does. Returns its record, and whether built.

    One that serves is kept, for whatever further cards, pictures and options it was built. What takes its place is built for the
    same ones, as far as they go with the purpose, and for the target.
    """
    with suppress(EngineError):
        record = check_plan(folder, purpose, target.machine, for_triton=True, whole=True)
        if covers(record.recipe.sm, target.sm):
            print(f"{purpose.component} {purpose.precision}: kept, it serves what is asked for", file=sys.stderr)
            return record, False
    options, sizes, sm = _chosen_before(folder, purpose)
    return build_for(purpose, folder, replace(target, sm=tuple(sorted({*target.sm, *sm}))), options, sizes)


def _chosen_before(folder: Path, purpose: Purpose) -> tuple[Options, Sizes, tuple[int, ...]]:
    """What was chosen for the plan of a folder, as far as it goes with the purpose: options, pictures, compute capabilities."""
    record, runtime = read_record(folder), purpose.execution.runtime
    if record is None or (record.recipe.variant, record.recipe.runtime) != (purpose.variant.name, runtime.name):
        return NO_OPTIONS, ALL_SIZES, ()
    options, sizes = record.recipe.options, record.recipe.sizes
    if runtime.backend != "python":
        options = replace(options, stripped=False, weight_streaming=False)  # Triton's own backend serves no such plan
    try:
        purpose.bounds(sizes)
    except EngineError:
        sizes = ALL_SIZES
    return options, sizes, record.recipe.sm


def build_missing(variant: Variant, placement: Placement, root: Path) -> None:
    """Every plan of a placement that is missing or does not serve it on its card, which is here. `root`: of <precision>/<component>/."""
    for component, execution in placement.components.items():
        if execution.runtime.package:
            target = target_of(execution.runtime, gpu=placement.gpu)
            build_unfit(Purpose(variant, placement, component), root / execution.precision / component, target)


def build_apart(work: Work) -> Measured:
    """Builds in a process of its own: a failed build harms no other, and one that is interrupted ends. Raises `EngineError`."""
    from .tensorrt import build

    try:
        return apart(build, work)
    except ProcessDied as died:
        why = "was killed, most likely for want of memory" if died.signal == signal.SIGKILL else str(died)
        raise EngineError(f"{work.onnx}: the process that built it {why}; the log so far: {work.log}") from None


def refit_engine(base: Path, folder: Path, purpose: Purpose, machine: Machine) -> Record:
    """The plan of `base`, built with --refit or --stripped, with the weights of the ONNX file in `folder`, written to `folder`.

    Seconds instead of a build, for weights that changed in value only, as a fused LoRA's. The graphs must be the same file. The plan is
    kept only if it agrees with ONNX Runtime. Raises `EngineError` or `ParityError`, and then leaves what was there.
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
    from .tensorrt import refit

    started = time.monotonic()
    with replacing(folder / PLAN_FILE) as unproven:
        refit(base / PLAN_FILE, folder / ONNX_FILE, unproven, folder / LOG)
        verify_file(purpose, unproven, folder / ONNX_FILE, bounds_from(record.recipe.bounds))
    # Its weights are in and it is a finished plan now: whether it can be refitted again differs between TensorRT's versions.
    finished = replace(options, refit=False, stripped=False)
    recipe = replace(record.recipe, onnx=digests, options=finished)
    measured = replace(record.measured, seconds=round(time.monotonic() - started, 1), peak_host_bytes=None)
    return _finish(folder, recipe, machine, measured)


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


def plan_components(placement: Placement) -> list[str]:
    """Components that a placement runs from a plan. Raises `EngineError` where there is none."""
    found = [name for name in COMPONENTS if placement.components[name].runtime.package]
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
        if any(execution.runtime.package for execution in placement.components.values())
    }
    return [name for name in PLACEMENT_NAMES if name in found]


def _finish(folder: Path, recipe: Recipe, machine: Machine, measured: Measured) -> Record:
    record = Record(recipe, machine, (folder / PLAN_FILE).stat().st_size, sha256(folder / PLAN_FILE), measured)
    record.write(folder)
    return record


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
    parser.add_argument(
        "--sm",
        type=parse_sm,
        default=(),
        metavar="75,86,89,120",
        help="compile with TensorRT for RTX for these compute capabilities, on any machine (default with that runtime: the card here)",
    )
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)  # as other commands spell it; it is JSON anyway
    engine_options.add_arguments(parser)


def parse_sm(text: str) -> tuple[int, ...]:
    """`89,120` -> (89, 120). Raises `ArgumentTypeError`, whose words argparse tells."""
    if not re.fullmatch(r"\d+(,\d+)*", text, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"expected compute capabilities without the dot, between commas, e.g. 89 for 8.9, or 75,86,89,120, got '{text}'"
        )
    return tuple(int(each) for each in text.split(","))


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Which plans: the arguments that `engine`, `verify` and `inspect` share."""
    add_variant(parser)
    parser.add_argument("--placement", "--profile", choices=plan_placements(), default=plan_placements()[-1])
    add_runtime(parser)
    parser.add_argument("--component", choices=COMPONENTS, action="append", help="only this one; may be repeated")
    add_components(parser, "root of the ONNX files")


def chosen_placement(args: argparse.Namespace) -> Placement:
    """The placement, with its plans on the runtime that was chosen; --sm chooses TensorRT for RTX."""
    placement = placement_of(VARIANTS[args.variant], args.placement)
    runtime = args.runtime or (TRT_RTX.name if getattr(args, "sm", ()) else None)
    return placement.on(runtime) if runtime else placement


def purpose_of(args: argparse.Namespace, component: str) -> Purpose:
    """What the plan of a component is to serve."""
    return Purpose(VARIANTS[args.variant], chosen_placement(args), component)


def selected(args: argparse.Namespace) -> list[tuple[str, str, Path]]:
    """(component, precision, folder) of every chosen plan."""
    placement = chosen_placement(args)
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
    placement = chosen_placement(args)
    root: Path = args.components or onnx_folder(VARIANTS[args.variant])
    return {name: root / execution.precision / name for name, execution in placement.components.items()}


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    options = engine_options.from_arguments(args)
    sizes = Sizes(only=args.static or args.size, largest=args.largest, static=args.static is not None)
    chosen = selected(args)
    purposes = {name: purpose_of(args, name) for name, _, _ in chosen}
    for purpose in purposes.values():
        purpose.bounds(sizes)  # says what is wrong with a size before anything is looked for
    for _, precision, folder in chosen:
        if not (folder / ONNX_FILE).exists():
            made = f"onnx --variant {variant.name} --precision {precision}"
            cure = made if precision in PRECISIONS else f"quantize --variant {variant.name}"
            raise EngineError(f"expected {folder / ONNX_FILE}; make it with `python -m export {cure}`")
    runtimes = {name: purpose.execution.runtime for name, purpose in purposes.items()}
    targets = {runtime.name: target_of(runtime, args.sm) for runtime in runtimes.values()}
    documents = {}
    for component, precision, folder in chosen:
        built, target, purpose = True, targets[runtimes[component].name], purposes[component]
        if args.refit_from is not None:
            record = refit_engine(args.refit_from / precision / component, folder, purpose, target.machine)
        else:
            record, built = build_for(purpose, folder, target, options, sizes)
        documents[component] = {"plan": str(folder / PLAN_FILE), "built": built, **document(record)}
        print(f"{component} {precision}: {_told(record)}", file=sys.stderr)
    (target,) = targets.values()
    found = {"variant": variant.name, "placement": args.placement, "runtime": target.label, "sm": list(target.sm)}
    print(json.dumps({**found, "gpu": target.machine.gpu or None, "components": documents}))
    return 0


def document(record: Record) -> dict[str, Any]:
    """A plan's figures, for JSON. Sizes in bytes, or in MB of 10^6 bytes."""
    return {
        "precision": record.recipe.precision,
        "plan_mb": round(record.plan_bytes / 1e6, 3),
        **asdict(record.measured),
        "bounds": record.recipe.bounds,
    }


def _told(record: Record) -> str:
    """A plan's figures in a line for people."""
    parts = [("weights", record.measured.weight_bytes), ("activations", record.measured.activation_bytes)]
    sizes = [f"{what} {size / 1e6:,.1f} MB" for what, size in (("plan", record.plan_bytes), *parts) if size is not None]
    return f"{', '.join([*sizes, *told_products(record.measured)])}, built in {record.measured.seconds:.1f} s"


def told_products(measured: Measured) -> list[str]:
    """What a plan's products read, in words; empty where the log does not say."""
    words = [f"{count} products {types}" for types, count in measured.factors.items()]
    if measured.unfolded:
        words.append(f"{measured.unfolded} weights unfolded first, the largest {measured.unfolded_bytes / 1e6:,.1f} MB")
    return words
