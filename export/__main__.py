"""`python -m export <command>`: from a checkpoint to what Triton loads. `python -m export <command> --help` explains each step.

Thin: parses, calls one function of the step's module, prints. Progress goes to stderr; the last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from faceclip_serving.contract.sdxl import TINY_SDXL
from faceclip_serving.contract.signatures import COMPONENTS
from faceclip_serving.contract.variants import VARIANTS

_STEPS = (
    "download",
    "plan",
    "engine",
    "verify",
    "inspect_engine",
    "ranges",
    "picture",
    "quantize",
    "repository",
)
"""Modules of this package that bring their own command, by `add_command(subparsers)`; the order of `--help`."""

_PURPOSE = "From a checkpoint to what Triton loads. `python -m export <command> --help` explains a step."

_OVERVIEW = """steps, in order:
  python -m export download --to checkpoint                official weights (not needed for tiny-sdxl)
  python -m export onnx --variant tiny-sdxl                components -> ONNX, proven against torch
  python -m export engine --variant sdxl                   ONNX -> TensorRT engines (where a GPU serves; docs/tensorrt.md)
  python -m export verify --variant sdxl                   engines against ONNX Runtime
  python -m export repository --variant tiny-sdxl          ONNX or engines -> a model repository for Triton"""

_ONNX_HELP = """Each component is traced with symbolic batch and size, written with its precision in the graph, and compared with
the FP32 network on several batches and sizes; one that differs too much is not written. Inputs and outputs are FP32 in every
precision. What is up to date is kept."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. Errors that a user can mend are one line on stderr and code 1."""
    parser = argparse.ArgumentParser(
        prog="python -m export", description=_PURPOSE, epilog=_OVERVIEW, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="command")
    _add_onnx(subparsers)
    for step in _STEPS:
        importlib.import_module(f"{__package__}.{step}").add_command(subparsers)
    args = parser.parse_args(argv)
    try:
        code: int = args.run(args)
    except (RuntimeError, ValueError, OSError) as error:
        if not _is_expected(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    return code


def _is_expected(error: Exception) -> bool:
    """Whether the message is written for the user: errors of the system about files, and those that this project raises."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in {__package__, "faceclip_serving"}


def _add_onnx(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("onnx", help="export components to ONNX, with parity", description=_ONNX_HELP)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default=TINY_SDXL.name)
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8w"),
        default="fp32",
        help="of weights and products (default: fp32); int8w: FP16 with INT8 weights",
    )
    parser.add_argument("--component", choices=COMPONENTS, action="append", help="only this one; may be repeated")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--checkpoint", type=Path, metavar="DIR", help="folder of official weights, as `download` fills it")
    weights.add_argument("--seeded", action="store_true", help="deterministic stand-in weights, to try the export itself")
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:SCALE]",
        help="fuse a LoRA (kohya's or diffusers' safetensors) into the weights; may be repeated",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("build/onnx"), metavar="DIR", help="root of <variant>/<precision>/<component>/"
    )
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="components at a time; each holds its weights")
    parser.add_argument(
        "--parity-depth",
        choices=("full", "shallow"),
        default="full",
        help="shallow: compare a form of the same widths and fewer blocks, where the whole one would take hours; recorded",
    )
    parser.set_defaults(run=_onnx)


def _onnx(args: argparse.Namespace) -> int:
    from .checkpoint.lora import parse_lora  # here, since torch takes seconds to import
    from .onnx.export import export_components

    loras = [parse_lora(text) for text in args.lora]
    variant = VARIANTS[args.variant]
    folder = args.output / variant.name / args.precision
    names = args.component or COMPONENTS
    exported = [
        {"component": metadata["component"], "folder": str(folder / metadata["component"]), **_shown(metadata)}
        for metadata in export_components(
            variant, names, args.precision, folder, args.checkpoint, args.seeded, args.processes, loras, args.parity_depth
        )
    ]
    print(json.dumps({"variant": variant.name, "precision": args.precision, "components": exported}))
    return 0


def _shown(metadata: dict[str, object]) -> dict[str, object]:
    return {key: metadata[key] for key in ("weights", "loras", "parameters", "files", "parity", "seconds", "peak_memory_bytes")}


if __name__ == "__main__":
    sys.exit(main())
