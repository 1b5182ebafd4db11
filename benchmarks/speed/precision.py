"""What a narrower denoiser does to pictures: PSNR to those of the FP32 one, and the size of its file.

Everything but the denoiser is the same FP32 graph. ONNX Runtime's CPU provider computes FP16 products in FP32, so rounding of
weights shows here, and of activations only in `int8` and `fp8`. Runs in one process. What needs calibration is taken as `export
quantize` left it; half of the prompts calibrated it, unless it was told others. Below the bound of the component
(`Network.quantization`) the precision is not accepted: exit code 1. With seeded stand-in weights the figures compare precisions with
each other; for trained weights measure again with --checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.commandline import add_checkpoint, add_variant
from export.onnx.draw import SMALLEST_PSNR_DB
from export.onnx.record import read_metadata
from export.onnx.wanted import CALIBRATED
from export.paths import PHOTOGRAPH, onnx_folder
from export.quantize.sitting import PROMPTS, UNSEEN
from faceclip_serving.contract.components import components
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.placements import CPU, ONNX_FILE, ORT_CPU
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..measure.pictures import Picture, decoded, picture_psnr_db
from ..measure.report import emit, say

PLACEMENT = CPU
ALL_PROMPTS = (*UNSEEN, *PROMPTS)
NARROWER = ("fp16", "int8w", *CALIBRATED)


class PrecisionError(UserError):
    """A denoiser that is to be judged was not made."""


def measure_precision(
    variant: Variant, precision: str, steps: int, prompts: int, seeds: int = 1, checkpoint: Path | None = None
) -> dict[str, Any]:
    """PSNR of the pictures of so many prompts and seeds of each, with and without a face, and the bytes of both denoisers.

    Raises `PrecisionError` where the precision is one that calibration makes, and nothing was made.
    """
    from export.networks.components import network
    from export.repository.from_nothing import build_repository
    from faceclip_serving.models.onnx_component import OnnxComponent

    from ..measure import inprocess

    folder = onnx_folder(variant) / precision / DENOISER
    metadata = denoiser_of(variant, precision, checkpoint, folder)
    pipeline = inprocess.load(variant, PLACEMENT, build_repository(variant, PLACEMENT, checkpoint))
    runs = {
        "fp32": pipeline.stages[DENOISER],
        precision: OnnxComponent(folder / ONNX_FILE, components(variant)[DENOISER], ORT_CPU.providers, {}).run,
    }

    def picture(name: str, prompt: str, photo: bytes | None, seed: int) -> Picture:
        pipeline.stages[DENOISER] = runs[name]
        photos = [] if photo is None else [photo]
        return decoded(
            pipeline(request_tensors(prompt=prompt, face_images=photos, seed=seed, num_inference_steps=steps))["images"][0]
        )

    cases: list[dict[str, Any]] = []
    for photo in (PHOTOGRAPH.read_bytes(), None):
        for prompt, seed in drawn(prompts, seeds):
            psnr = picture_psnr_db(*(picture(name, prompt, photo, seed) for name in runs))
            cases.append({"prompt": prompt, "face": photo is not None, "seed": seed, "psnr_db": round(psnr, 2)})
            say(f"{'face' if photo else 'no face'}, {prompt}, seed {seed}: {psnr:.1f} dB")
    reference = onnx_folder(variant) / "fp32" / DENOISER
    worst = min(case["psnr_db"] for case in cases)
    rules = network(variant, DENOISER).quantization
    bound = rules.smallest_psnr_db.get(precision, SMALLEST_PSNR_DB) if rules else SMALLEST_PSNR_DB
    return {
        "variant": variant.name,
        "precision": precision,
        "steps": steps,
        "psnr_db_min": worst,
        "smallest_psnr_db": bound,
        "accepted": worst >= bound,
        "below": sum(case["psnr_db"] < bound for case in cases),
        "pictures": len(cases),
        "denoiser_bytes": {"fp32": _bytes(reference), precision: _bytes(folder)},
        **{name: metadata[name] for name in ("parity", "notes", "calibration", "stored", "operators") if name in metadata},
        "cases": cases,
    }


def denoiser_of(variant: Variant, precision: str, checkpoint: Path | None, folder: Path) -> Mapping[str, Any]:
    """Metadata of the denoiser in `folder`, which is exported first where no calibration is needed. Raises `PrecisionError`."""
    from export.onnx.export import export_component
    from export.onnx.wanted import Export

    if precision not in CALIBRATED:
        return export_component(Export(variant, DENOISER, precision, checkpoint), folder)
    metadata = read_metadata(folder)
    if metadata is None:
        raise PrecisionError(
            f"expected {folder / ONNX_FILE}; make it with `python -m export quantize --variant {variant.name} --mode {precision}`"
        )
    return metadata


def drawn(prompts: int, seeds: int) -> list[tuple[str, int]]:
    """Prompts with their seeds: one seed is another for each prompt, eight are the same for all."""
    chosen = ALL_PROMPTS[:prompts]
    return [(prompt, (i + k) % len(ALL_PROMPTS)) for i, prompt in enumerate(chosen) for k in range(seeds)]


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{ONNX_FILE}*"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    parser.add_argument("--precision", choices=NARROWER, default="int8w", help="of the denoiser (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=8, help="of each picture (default: %(default)s)")
    parser.add_argument(
        "--prompts",
        type=int,
        default=8,
        choices=range(1, 9),
        metavar="1-8",
        help="each with and without a face (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, choices=range(1, 9), metavar="1-8", help="of each prompt (default: %(default)s)"
    )
    add_checkpoint(parser, "folder of the official layout (default: seeded weights)")


def run(args: argparse.Namespace) -> int:
    document = measure_precision(VARIANTS[args.variant], args.precision, args.steps, args.prompts, args.seeds, args.checkpoint)
    more = [f"{args.seeds}-seeds"] if args.seeds > 1 else []
    emit("-".join(["precision", args.precision, args.variant, *more]), document)
    return 0 if document["accepted"] else 1
