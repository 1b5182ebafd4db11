"""What only a card can tell of a placement, in one go, in one file to share; what needs no card is done on any machine.

Parts, each with a bound: what the machine has; the forecast; components exported if they are missing (with seeded weights, unless
--checkpoint, or the variant brings its own); plans built by TensorRT for RTX or TensorRT; every plan against ONNX Runtime; its start
without a runtime cache and with it, its times and memory; a picture by the plans and by ONNX Runtime; everything on the card at once,
within the memory that the placement may use. Exit code 0 only if every part that ran held its bound. Without a card, plans are
compiled for RTX 20 to 50, and the parts after that say that they were not run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from export.commandline import add_checkpoint, add_components, add_runtime, add_variant
from export.engine.build import Target, build_unfit, document, parse_sm, plan_components, plan_placements, target_of
from export.engine.errors import EngineError
from export.engine.machine import SERIES, checks, oldest, runs_rtx
from export.engine.record import Purpose, sm_of
from export.forecast.forecast import document as forecast_document
from export.forecast.forecast import predict
from export.forecast.shapes import find
from export.onnx.draw import SMALLEST_PSNR_DB
from export.onnx.record import is_whole, read_metadata
from export.onnx.wanted import PRECISIONS, Export
from export.outputs import replacing, require_file
from export.paths import onnx_folder
from faceclip_serving.contract.components import both_sides, components
from faceclip_serving.contract.names import COMPONENTS
from faceclip_serving.contract.placements import TENSORRT, TRT_RTX, Placement, Runtime, placement_of, placements
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant
from faceclip_serving.models.tensorrt_package import Card, PackageError, find_card, installed

from ..measure.own_process import run_module
from ..measure.report import stamp, write_document
from . import small_card, trial, ways
from .parts import NO_GPU, REASON, Parts
from .report_file import FOLDER, file_name
from .trial import Trial

WITHOUT_CARD = "16gb"
"""The placement where no card says which."""
TIMEOUT_S = 3600.0
"""Of one trial; the full-size denoiser on ONNX Runtime takes minutes."""


# ----------------------------------------------------------------------------------------------------------------- choices
def card_here() -> Card | None:
    """The card that plans would run on; None where there is none."""
    try:
        return find_card()
    except PackageError:
        return None


def best_placement(variant: Variant, card: Card | None) -> str:
    """Name of the placement with plans that may use most of the card's memory, of those that the card can compute.

    Raises `EngineError` where there is none.
    """
    if card is None:
        return WITHOUT_CARD
    sm, table = sm_of(card.capability), placements(variant)
    fitting = {
        name: table[name].gpu_bytes or 0
        for name in plan_placements()
        if name in table and all(sm >= oldest(execution) for execution in table[name].components.values())
    }
    if card.total_bytes is None:  # shared with the host
        fitting = {name: size for name, size in fitting.items() if name == WITHOUT_CARD}
    else:
        fitting = {name: size for name, size in fitting.items() if size <= card.total_bytes}
    if not fitting:
        memory = "" if card.total_bytes is None else f", {card.total_bytes / 1e9:.2f} GB"
        raise EngineError(
            f"placement: none of '{variant.name}' is for this card ({card.name}, compute capability {card.capability}{memory}); name one"
            " (--placement, PLACEMENT= of make) to see what it lacks"
        )
    return max(fitting, key=lambda name: fitting[name])


def runtime_for(card: Card | None) -> Runtime:
    """TensorRT for RTX for the cards that it runs on, and where there is no card; else TensorRT. The other one where it alone is here."""
    fit = TRT_RTX if card is None or runs_rtx(sm_of(card.capability)) else TENSORRT
    return fit if find_spec(fit.package) else installed()


def chosen_placement(args: argparse.Namespace, card: Card | None) -> Placement:
    """The placement, with its plans on the runtime that is asked for, or that the card and this machine suggest."""
    variant = VARIANTS[args.variant]
    placement = placement_of(variant, args.placement or best_placement(variant, card))
    fit = TRT_RTX.name if args.sm else "" if args.placement else runtime_for(card).name
    runtime = args.runtime or fit
    return placement.on(runtime) if runtime else placement


def capabilities(placement: Placement, card: Card | None) -> tuple[int, ...]:
    """Of the cards to compile for, where there is none here: all that read the placement's precisions. With one: empty, the card's."""
    least = max(oldest(execution) for execution in placement.components.values())
    return () if card else tuple(sm for sm in SERIES if sm >= least)


# ------------------------------------------------------------------------------------------------------------------- parts
def machine(placement: Placement) -> dict[str, Any]:
    """What serving the placement needs, and whether it is here."""
    found = list(checks(placement))
    lacking = [each.line for each in found if each.problem]
    return {"checks": [each.line for each in found], REASON: "; ".join(lacking)}


def forecast(variant: Variant, placement: Placement, exported: Path) -> dict[str, Any]:
    """The predicted memory, and what a usual call of each component computes and reads."""
    predicted = predict(variant, placement, exported)
    usual = {name: {axis: each.opt for axis, each in Purpose(variant, placement, name).bounds().items()} for name in COMPONENTS}
    work = {name: counted(variant, find(variant.name, name, exported), usual[name]) for name in COMPONENTS}
    return {
        "predicted_bytes": predicted.gpu_bytes,
        "limit_bytes": placement.gpu_bytes,
        "forecast": forecast_document(predicted),
        "work": work,
        REASON: "" if predicted.fits else f"{predicted.gpu_bytes} bytes are predicted, {placement.gpu_bytes} may be used",
    }


def counted(variant: Variant, model: Any, case: Mapping[str, int]) -> dict[str, Any]:
    """Work of one call of a graph, by counting: what the card's speed must be held against."""
    from export.forecast.cost import graph_cost
    from export.forecast.shapes import concrete

    cost = graph_cost(concrete(model, both_sides(variant, case)))
    return {"sizes": dict(case), "flops": cost.flops, "weight_bytes": cost.weight_bytes}


def export_missing(
    variant: Variant, placement: Placement, names: Sequence[str], root: Path, checkpoint: Path | None
) -> dict[str, Any]:
    """Makes those components' ONNX files that are not there, or are not those that would be made. Raises `UserError`.

    Without a checkpoint, weights and LoRAs that were chosen for what is there stay: stand-ins would say less of the card.
    """
    from export.onnx.export import export_components, is_kept, unnamed  # torch

    wanted: list[Export] = []
    there: list[Export] = []
    precisions = {name: placement.components[name].precision for name in names}
    for component, precision in precisions.items():
        folder = root / precision / component
        metadata = read_metadata(folder)
        whole = metadata is not None and is_whole(folder, metadata)
        if precision in PRECISIONS:
            seeded = checkpoint is None and variant.weights == "checkpoint"
            export = Export(variant, component, precision, checkpoint, seeded=seeded)
            chosen = whole and checkpoint is None and bool(unnamed(export, folder))
            (there if chosen or is_kept(export, folder) else wanted).append(export)
        elif whole:
            there.append(Export(variant, component, precision))
        else:
            raise EngineError(
                f"{component}: expected {precision} in {folder}; make it with `python -m export quantize --variant {variant.name}"
                f" --mode {precision}`"
            )
    for _ in export_components(wanted, root):
        pass
    found = {name: read_metadata(root / precision / name) or {} for name, precision in precisions.items()}
    weights = {name: metadata.get("weights", {}).get("source", "unknown") for name, metadata in found.items()}
    return {"made": [each.component for each in wanted], "there": [each.component for each in there], "weights": weights}


def build_part(purpose: Purpose, folder: Path, target: Target) -> dict[str, Any]:
    """The plan of one component, built unless one is there that serves, and what its compiler says."""
    record, built = build_unfit(purpose, folder, target)
    return {"built": built, "compiler": target.label, **document(record)}


def started(job: Trial, keeps_cache: bool) -> dict[str, Any]:
    """A start; its bound breaks where an output is not finite, or where no runtime cache was left that should be."""
    found = run_module(trial.__name__, job, TIMEOUT_S)
    why = ""
    if found.get("finite") is False:
        why = "an output is not finite"
    elif keeps_cache and found.get("runtime_cache_bytes") == 0:
        why = "no runtime cache was kept"
    return {**found, REASON: why}


def on_card(job: Trial, limit_bytes: int, card: Card | None) -> dict[str, Any]:
    """Everything at once on a card of `limit_bytes`."""
    with ExitStack() as stack:
        occupied = stack.enter_context(small_card.hold(limit_bytes)) if card else 0
        found = run_module(trial.__name__, job, TIMEOUT_S)
    peak, why = found.get("peak_bytes"), ""
    if found.get("finite") is False:
        why = "the picture is not finite"
    elif card and "error" not in found and not peak:
        why = "NVML does not say how much memory was held; pip install nvidia-ml-py"
    elif peak and peak > limit_bytes:
        why = f"{peak} bytes were held, {limit_bytes} may be used"
    return {**found, "limit_bytes": limit_bytes, "occupied_bytes": occupied, REASON: why}


def peers(variant: Variant, purpose: Purpose, folder: Path, repeats: int, device: str) -> dict[str, Any]:
    """A component's usual call by torch and by ONNX Runtime."""
    case = {axis: each.opt for axis, each in purpose.bounds().items()}
    bound = ways.tolerance(variant, purpose.component, purpose.precision)
    found: dict[str, Any] = {"tolerance": bound}
    wrong = []
    with tempfile.TemporaryDirectory() as references:
        for way in ways.WAYS:
            place = str(folder.resolve())
            job = ways.WayTrial(variant.name, purpose.component, way, place, references, (case,), repeats, device)
            found[way] = run_module(ways.__name__, job, TIMEOUT_S)
            (one,) = found[way].get("cases", [found[way]])
            error = one.get("error_of_largest")
            if "error" in one:
                wrong.append(f"{way}: {one['error']}")
            elif way in ways.EXACT_WAYS and error is not None and not error <= bound:
                wrong.append(f"{way}: error {error}, tolerance {bound}")
    return {**found, REASON: "; ".join(wrong)}


def carry_out(args: argparse.Namespace, placement: Placement, card: Card | None, parts: Parts) -> None:
    """All parts, in their order. What cannot be run says why; what fails leaves the others."""
    variant, root = VARIANTS[args.variant], args.components or onnx_folder(VARIANTS[args.variant])
    no_card = "" if card else NO_GPU
    no_run = "" if card or args.rehearse else NO_GPU
    parts.do(
        "machine", "packages, driver, card and free memory are as the placement needs", lambda: machine(placement), no_card
    )
    parts.do("forecast", "fits the memory of the placement", lambda: forecast(variant, placement, root))
    exported = parts.do(
        "export",
        "each graph made is within its tolerance of the torch network",
        lambda: export_missing(variant, placement, args.component or COMPONENTS, root, args.checkpoint),
    )
    not_exported = "" if exported else "the export failed"
    built: dict[str, bool] = {}
    job = Trial(
        "", variant.name, placement.name, placement.plans_on, str(root.resolve()),
        repeats=args.repeats, steps=args.steps, rehearse=args.rehearse,
    )  # fmt: skip
    for component in args.component or plan_components(placement):
        purpose = Purpose(variant, placement, component)
        folder, runtime = root / purpose.precision / component, purpose.execution.runtime
        sm = args.sm or capabilities(placement, card) if runtime.ahead_of_time else args.sm
        built[component] = parts.do(
            f"build {component}",
            "the compiler takes the graph; names, types and axes are the signature's",
            lambda p=purpose, f=folder, r=runtime, s=sm: build_part(p, f, target_of(r, s)),  # type: ignore[misc]
            not_exported or ("" if runtime.ahead_of_time else no_card),
        )
        not_built = no_run or ("" if built[component] else "its plan was not built")
        one = replace(job, component=component)
        parts.do(
            f"agreement {component}",
            f"largest error at most {ways.tolerance(variant, component, purpose.precision):g} of ONNX Runtime's largest value",
            lambda one=one: run_module(trial.__name__, replace(one, what="agreement"), TIMEOUT_S),  # type: ignore[misc]
            not_built,
        )
        with tempfile.TemporaryDirectory() as cache:
            start = replace(one, what="start", cache=cache)
            keeps = runtime.ahead_of_time and not args.rehearse
            for when in ("cold", "warm") if runtime.ahead_of_time else ("cold",):
                parts.do(
                    f"{when} start {component}",
                    "outputs are finite" + (", and a runtime cache is kept" if keeps else ""),
                    lambda start=start, keeps=keeps: started(start, keeps),  # type: ignore[misc]
                    not_built,
                )
        if args.peers:
            parts.do(
                f"peers {component}",
                "ONNX Runtime is within the tolerance of torch in FP32",
                lambda p=purpose, f=folder: peers(variant, p, f, args.repeats, "cpu" if args.rehearse else "cuda"),  # type: ignore[misc]
                no_run or not_exported,
            )
    missing = set(plan_components(placement)) - {name for name, done in built.items() if done}
    incomplete = no_run or (f"no plan of {', '.join(sorted(missing))}" if missing else "")
    parts.do(
        "picture",
        f"PSNR of at least {SMALLEST_PSNR_DB:.0f} dB to ONNX Runtime's",
        lambda: run_module(trial.__name__, replace(job, what="picture"), TIMEOUT_S),
        incomplete,
    )
    limit = placement.gpu_bytes or 0
    parts.do(
        "all on the card",
        "a finite picture, in one process" + ("" if args.rehearse else f", within {limit / 1e9:.2f} GB of the card"),
        lambda: on_card(replace(job, what="on_card"), limit, card),
        incomplete,
    )


# ---------------------------------------------------------------------------------------------------------------- command
def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser, "nano")
    parser.add_argument(
        "--placement", "--profile", choices=plan_placements(), help="default: the one that uses most of the card here"
    )
    add_runtime(parser)
    parser.add_argument(
        "--sm",
        type=parse_sm,
        default=(),
        metavar="75,86,89,120",
        help="compile with TensorRT for RTX for these compute capabilities (default: the card here, or all four without one)",
    )
    parser.add_argument("--component", choices=COMPONENTS, action="append", help="only its plan; may be repeated")
    add_components(parser, "root of the ONNX files")
    add_checkpoint(parser, "folder of the official weights, for what is exported (default: the variant's own, else seeded)")
    parser.add_argument("--repeats", type=int, default=20, help="timed runs of each usual call (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=8, help="of the picture (default: %(default)s)")
    parser.add_argument("--peers", action="store_true", help="also torch, eager and compiled, and ONNX Runtime, by component")
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="all steps on the CPU: ONNX Runtime in the place of the plans; for a tiny variant",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"the report (default: in {FOLDER}, called after the card)")


def run(args: argparse.Namespace) -> int:
    card = card_here()
    if args.rehearse and card:
        raise EngineError("rehearse: there is a card here; leave --rehearse out")
    placement = chosen_placement(args, card)
    path: Path = args.output or FOLDER / file_name(
        "gpu-verify", args.variant, placement.label, card.name if card else "rehearsal" if args.rehearse else "no card"
    )
    require_file(path)  # before hours are spent
    parts = Parts([each for each in (args.checkpoint, args.components) if each], lambda: write(path, report(False), parts))

    def report(complete: bool) -> dict[str, Any]:
        return stamp(
            {
                "variant": args.variant,
                "placement": placement.label,
                "card": asdict(card) if card else None,
                "rehearsal": args.rehearse,
                "complete": complete,
                "components": sorted(components(VARIANTS[args.variant])),
                "failed": parts.failed,
                "parts": parts.document(),
            }
        )

    try:
        carry_out(args, placement, card, parts)
        document = report(True)
        write(path, document, parts)
    finally:  # after Ctrl-C too
        if parts.found:
            print(f"the report is {path}, and for people {path.with_suffix('.txt')}", file=sys.stderr)
    print(json.dumps(document))
    return 1 if parts.failed else 0


def write(path: Path, document: Mapping[str, Any], parts: Parts) -> None:
    """The report, and beside it the same for people."""
    write_document(path, document)
    with replacing(path.with_suffix(".txt")) as partial:
        partial.write_text(f"{title(document)}\n\n{parts.text()}\n", encoding="utf-8")


def title(document: Mapping[str, Any]) -> str:
    """Variant, placement, card, time and versions, in lines for people."""
    card, versions = document["card"], document["versions"]
    on = f"{card['name']}, compute capability {card['capability']}, driver {card['driver']}" if card else "no card"
    known: Sequence[str] = [f"{name} {version}" for name, version in versions.items()]
    remarks = ["a rehearsal: no plan was run"] if document["rehearsal"] else []
    remarks += [] if document["complete"] else ["ended before its last part"]
    return "\n".join([f"{document['variant']} on {document['placement']}, {on}", *remarks, document["time"], ", ".join(known)])
