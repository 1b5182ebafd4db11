"""The same prompts drawn by two precisions of the ONNX files, from the same noise: how far apart the pictures are.

Each component keeps its own tolerance when it is exported; their errors add up over the steps, and this is where that shows. ONNX
Runtime has no FP16 products on the CPU and computes them in FP32 between casts, so there this sees the rounding of weights and of
tensors between operators; overflow is what `ranges` is for.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from faceclip_serving.contract.components import components
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import ONNX_FILE
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..commandline import add_components, add_variant
from ..onnx.draw import SMALLEST_PSNR_DB, Open, Run, psnr_db
from ..paths import onnx_folder
from .sitting import Sitting, add_sitting, sitting_from


class PictureError(UserError):
    """Two precisions draw different pictures, or files to draw with are missing."""


def compare(variant: Variant, folders: Mapping[str, Path], references: Mapping[str, Path], sitting: Sitting) -> list[float]:
    """PSNR in dB of each picture by the files in `folders` to that by `references`; both component -> folder.

    Raises `PictureError` below `SMALLEST_PSNR_DB`.
    """
    from .calibration import draw_all  # here, since torch takes seconds to import

    missing = [str(folder) for folder in (*folders.values(), *references.values()) if not (folder / ONNX_FILE).exists()]
    if missing:
        raise PictureError(
            f"expected {ONNX_FILE} in {', '.join(missing)}; make it with `python -m export onnx --variant {variant.name}`"
        )
    pictures = draw_all(variant, sitting, opener(variant, folders))
    expected = draw_all(variant, sitting, opener(variant, references))
    found = [psnr_db(picture, reference) for picture, reference in zip(pictures, expected, strict=True)]
    if not min(found) >= SMALLEST_PSNR_DB:  # also where it is not a number
        raise PictureError(
            f"the pictures are {', '.join(f'{value:.1f}' for value in found)} dB apart, expected at least {SMALLEST_PSNR_DB:.0f};"
            " `python -m export ranges` names what does not fit half precision"
        )
    return found


def opener(variant: Variant, folders: Mapping[str, Path]) -> Open:
    """Opens the components in `folders` on ONNX Runtime."""

    from ..onnx.parity import onnx_run  # here, since torch takes seconds to import

    @contextmanager
    def opened(component: str) -> Iterator[Run]:
        yield onnx_run(folders[component] / ONNX_FILE, components(variant)[component])

    return opened


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    parser.add_argument("--precision", default="fp16", help="the one to judge (default: %(default)s)")
    parser.add_argument("--reference", default="fp32", help="the one to compare with (default: %(default)s)")
    add_components(parser, "root of the ONNX files")
    add_sitting(parser)


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    root = args.components or onnx_folder(variant)
    judged = {name: root / args.precision / name for name in components(variant)}
    reference = {name: root / args.reference / name for name in components(variant)}
    print(f"{variant.name}: {args.precision} against {args.reference}", file=sys.stderr)
    found = compare(variant, judged, reference, sitting_from(args))
    document = {
        "variant": variant.name,
        "precision": args.precision,
        "reference": args.reference,
        "picture_psnr_db": [round(value, 2) for value in found],
        "smallest_psnr_db": SMALLEST_PSNR_DB,
    }
    print(json.dumps(document))
    return 0
