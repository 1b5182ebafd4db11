"""Exports components to ONNX.

Each component is traced with symbolic batch and size, written with its precision in the graph, and compared with the FP32 network on
several batches and sizes; one that differs too much is not written. Inputs and outputs are FP32 in every precision. The tokenizers
are written beside them. What is up to date is kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from faceclip_serving.contract.names import COMPONENTS
from faceclip_serving.contract.placements import placement_of
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..checkpoint.tokenizers import TOKENIZERS
from ..commandline import add_checkpoint, add_placement, add_variant
from ..paths import BUILD
from .errors import ExportError
from .wanted import DEPTHS, PRECISIONS, Export, emulated


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="of weights and products (default: fp32); int8w: FP16 with INT8 weights",
    )
    add_placement(precision, None, "each component in the precision that it has there, instead of --precision")
    parser.add_argument(
        "--emulate", action="store_true", help="with --placement: FP16 in the place of what only `export quantize` makes"
    )
    parser.add_argument(
        "--component", choices=(*COMPONENTS, TOKENIZERS), action="append", help="only this one; may be repeated"
    )
    weights = parser.add_mutually_exclusive_group()
    add_checkpoint(weights, "folder of official weights, as `download` fills it")
    weights.add_argument("--seeded", action="store_true", help="deterministic stand-in weights, to try the export itself")
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:SCALE]",
        help="fuse a LoRA, DoRA, LoHa or LoKr (safetensors of kohya, LyCORIS, diffusers or peft) into the weights; may be repeated",
    )
    parser.add_argument(
        "--output", type=Path, default=BUILD / "onnx", metavar="DIR", help="root of <variant>/<precision>/<component>/"
    )
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="components at a time; each holds its weights")
    parser.add_argument(
        "--parity-depth",
        choices=DEPTHS,
        default=DEPTHS[0],
        help="shallow: compare a form of the same widths and fewer blocks, where the whole one would take hours; recorded",
    )


def run(args: argparse.Namespace) -> int:
    from ..checkpoint.lora import parse_lora  # here, since torch takes seconds to import
    from ..networks.components import check_loras
    from .export import export_components
    from .tokenizers import export_tokenizers

    variant = VARIANTS[args.variant]
    loras = tuple(parse_lora(text) for text in args.lora)
    check_loras(variant, loras)  # before the first component takes its minutes
    chosen = args.component or [*COMPONENTS, *([TOKENIZERS] if _has_tokenizers(variant, args.checkpoint) else [])]
    wanted = [
        Export(variant, component, precision, args.checkpoint, loras, args.parity_depth, args.seeded)
        for component, precision in _precisions(args, [name for name in COMPONENTS if name in chosen]).items()
    ]
    root = args.output / variant.name
    tokenizers = {}
    if TOKENIZERS in chosen:  # first, since this takes a second and may miss a file
        tokenizers = {"folder": str(root / TOKENIZERS), **export_tokenizers(variant, args.checkpoint, root / TOKENIZERS)}
    exported = [
        {"component": made["component"], "folder": str(root / made["precision"] / made["component"]), **_shown(made)}
        for made in export_components(wanted, root, args.processes)
    ]
    precision = args.placement or args.precision
    print(json.dumps({"variant": variant.name, "precision": precision, "components": exported, TOKENIZERS: tokenizers}))
    return 0


def _has_tokenizers(variant: Variant, checkpoint: Path | None) -> bool:
    """Stand-in weights of a published variant come without."""
    return checkpoint is not None or variant.weights != "checkpoint"


def _precisions(args: argparse.Namespace, chosen: Sequence[str]) -> dict[str, str]:
    """Component -> what is asked for, or what the placement has. Raises `ExportError` for a precision that another command makes."""
    if args.placement is None:
        return dict.fromkeys(chosen, args.precision)
    variant = VARIANTS[args.variant]
    placement = placement_of(variant, args.placement)
    if args.emulate:
        placement = emulated(variant, placement, args.output / variant.name)
    found = {component: placement.components[component].precision for component in chosen}
    foreign = {component: precision for component, precision in found.items() if precision not in PRECISIONS}
    if args.emulate:  # then it is there already
        return {component: precision for component, precision in found.items() if component not in foreign}
    for component, precision in foreign.items():
        raise ExportError(
            f"{component}: placement '{args.placement}' runs it in {precision}, which `python -m export quantize --variant"
            f" {args.variant} --mode {precision}` makes; export the others with --component"
        )
    return found


def _shown(metadata: dict[str, object]) -> dict[str, object]:
    return {key: metadata[key] for key in ("weights", "loras", "parameters", "files", "parity", "seconds", "peak_memory_bytes")}
