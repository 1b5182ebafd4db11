"""A denoiser in fewer bits, calibrated on real sampling runs and accepted by its pictures.

The order: prompts are drawn with the file as it is, and what the denoiser was given is kept; a file in fewer bits is made of that, by ONNX
graphs alone for `int4w` (`compensated`), by NVIDIA ModelOpt for `int8` and `fp8` (`modelopt`); some of the prompts and as many that
calibrated nothing are drawn again with the result, and only if every picture is near enough does it get its place, as a precision of its
own beside `fp32` and `fp16`. Which layers stay as they are and what is near enough stands beside the component (`Network`). Knows the
steps, and nothing of how a file is made.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from faceclip_serving.contract.components import components
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.placements import ONNX_FILE
from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..commandline import add_components, add_variant
from ..onnx.draw import Run, psnr_db
from ..onnx.record import METADATA, describe_files, is_whole, read_metadata
from ..onnx.wanted import CALIBRATED, FACTOR_PRECISIONS
from ..outputs import appearing
from ..paths import onnx_folder
from .compare_pictures import opener
from .errors import QuantizationError
from .modelopt import modelopt_version, quantize_factors
from .sitting import MORE, PROMPTS, UNSEEN, Sitting, add_sitting, sitting_from

if TYPE_CHECKING:
    from ..networks.components import Quantization


def calibrate(
    variant: Variant, folders: Mapping[str, Path], sitting: Sitting, most_rows: int
) -> tuple[dict[str, Array], list[Array]]:
    """Denoiser input -> its values over the sampling runs [rows, ...], and the pictures that these led to.

    `folders`: component -> the folder of its ONNX file. Of more rows than `most_rows`, evenly spaced ones are kept, so that every
    part of the runs is there.
    """
    from .calibration import draw_all, recorded  # here, since torch takes seconds to import

    kept: list[Mapping[str, Array]] = []
    plain = opener(variant, folders)

    @contextmanager
    def opened(component: str) -> Iterator[Run]:
        with plain(component) as run:
            yield recorded(run, kept) if component == DENOISER else run

    pictures = draw_all(variant, sitting, opened)
    rows = {name: np.concatenate([each[name] for each in kept]) for name in kept[0]}
    count = len(rows["timestep"])
    chosen = np.unique(np.linspace(0, count - 1, min(count, most_rows)).round().astype(int))
    return {name: values[chosen] for name, values in rows.items()}, pictures


def require_near(pictures: Sequence[Array], references: Sequence[Array], mode: str, rules: Quantization) -> list[float]:
    """PSNR of each picture, dB. Raises `QuantizationError` where one is below the component's bound."""
    bound = rules.smallest_psnr_db[mode]
    found = [psnr_db(picture, reference) for picture, reference in zip(pictures, references, strict=True)]
    if not min(found) >= bound:  # also where it is not a number
        raise QuantizationError(
            f"{mode}: the pictures are {', '.join(f'{value:.1f}' for value in found)} dB from those of the graph it was made of,"
            f" expected at least {bound:.0f}; not accepted. Leave more layers as they are (export/networks/components.py), or calibrate"
            " on more prompts, steps and rows"
        )
    return found


def quantize(
    variant: Variant,
    mode: str,
    folders: Mapping[str, Path],
    destination: Path,
    sitting: Sitting,
    most_rows: int,
    python: str,
    unseen: Sequence[str] = UNSEEN,
) -> dict[str, Any]:
    """Writes the quantised denoiser to the folder `destination`, if its pictures pass, and returns its metadata.

    `mode`: one of `CALIBRATED`. `sitting` calibrates; the `unseen` prompts, and the first of its own, as many, are what must be drawn as
    before. `python`: the interpreter that has ModelOpt, where the mode needs it.
    """
    from ..networks.components import network, unquantized  # here, since torch takes seconds to import
    from ..onnx.graph import verify_file
    from .calibration import draw_all
    from .compensated import quantize_weights

    row, layers = network(variant, DENOISER), unquantized(variant, DENOISER)
    rules = row.quantization
    assert rules is not None
    base = _base(variant, folders)
    tools = {"modelopt": modelopt_version(python)} if mode in FACTOR_PRECISIONS else {}
    with appearing(destination, METADATA) as partial:
        print("drawing the calibration pictures", file=sys.stderr, flush=True)
        rows, references = calibrate(variant, folders, sitting, most_rows)
        known, others = (replace(sitting, prompts=tuple(prompts)) for prompts in (sitting.prompts[: len(unseen)], unseen))
        references = references[: len(unseen)] + draw_all(variant, others, opener(variant, folders))
        source = folders[DENOISER] / ONNX_FILE
        made = (
            quantize_factors(python, source, partial, mode, rows, layers)
            if mode in FACTOR_PRECISIONS
            else quantize_weights(source, partial, rows, row.keep_half, row.keep_eight(variant))
        )
        verify_file(partial / ONNX_FILE, components(variant)[DENOISER])
        print("drawing them again, quantised", file=sys.stderr, flush=True)
        quantized = opener(variant, {**folders, DENOISER: partial})
        pictures = [*draw_all(variant, known, quantized), *draw_all(variant, others, quantized)]
        found = [round(value, 2) for value in require_near(pictures, references, mode, rules)]
        metadata = {
            "variant": variant.name,
            "component": DENOISER,
            "precision": mode,
            "identity": f"{mode} of {base['identity']}",
            "base": {"precision": base["precision"], "identity": base["identity"]},
            **tools,
            "calibration": {"prompts": list(sitting.prompts), "steps": sitting.steps, "rows": len(rows["timestep"])},
            **made,
            "picture_psnr_db": {"calibration": found[: len(known.prompts)], "unseen": found[len(known.prompts) :]},
            "unseen_prompts": list(unseen),
            "smallest_psnr_db": rules.smallest_psnr_db[mode],
            "files": describe_files(partial),
        }
        (partial / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
    return metadata


def _base(variant: Variant, folders: Mapping[str, Path]) -> dict[str, Any]:
    for component, folder in folders.items():
        metadata = read_metadata(folder)
        if metadata is None or not is_whole(folder, metadata):
            raise QuantizationError(
                f"{component}: expected {folder / ONNX_FILE}, whole; make it with `python -m export onnx --variant {variant.name}"
                f" --precision {folder.parent.name}`"
            )
    found = read_metadata(folders[DENOISER])
    assert found is not None
    return found


# ---------------------------------------------------------------------------------------------------------------- command
def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    parser.add_argument("--mode", choices=CALIBRATED, required=True)
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp16",
        help="of the file to start from, which what is not quantised keeps (default: %(default)s)",
    )
    add_components(parser, "root of the ONNX files")
    parser.add_argument(
        "--rows", type=int, default=192, metavar="N", help="denoiser rows to calibrate on (default: %(default)s)"
    )
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter that has NVIDIA ModelOpt, for int8 and fp8 (default: this one)"
    )
    add_sitting(parser)
    parser.add_argument(
        "--unseen",
        action="append",
        metavar="PROMPT",
        help="draw this to judge by, and calibrate nothing on it; may be repeated (default: four of our own)",
    )


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    root = args.components or onnx_folder(variant)
    folders = {name: root / args.precision / name for name in components(variant)}
    destination = root / args.mode / DENOISER
    unseen = args.unseen or UNSEEN
    seen = sorted({*unseen} & {*(args.prompt or (*PROMPTS, *MORE))})
    if seen:
        raise QuantizationError(
            f"unseen: expected prompts that calibrate nothing, got {seen[0]!r}, which does; leave it out of one"
        )
    if args.mode == "int4w" and args.precision != "fp16":
        raise QuantizationError("precision: expected fp16 for int4w, whose other layers stay as they are there, got fp32")
    if args.rows < 1 or args.steps < 1:
        raise QuantizationError(f"rows, steps: expected at least 1, got {args.rows} and {args.steps}")
    metadata = quantize(
        variant, args.mode, folders, destination, sitting_from(args, (*PROMPTS, *MORE)), args.rows, args.python, unseen
    )
    print(json.dumps({"folder": str(destination), **metadata}))
    return 0
