"""What a narrower denoiser does to pictures: PSNR to those of the FP32 one, and the size of its file.

Everything but the denoiser is the same FP32 graph. ONNX Runtime's CPU provider computes FP16 products in FP32, so rounding of
weights shows here, and rounding of activations does not. Runs in one process. With seeded stand-in weights the figures compare
precisions with each other; for trained weights measure again with --checkpoint.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export.commandline import add_checkpoint, add_variant
from export.onnx.export import export_component
from export.onnx.wanted import PRECISIONS, Export
from export.paths import onnx_folder
from export.repository.from_nothing import build_repository
from faceclip_serving.contract.placements import CPU, ORT_CPU
from faceclip_serving.contract.signatures import DENOISER, components
from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variant import Variant
from faceclip_serving.contract.variants import VARIANTS
from faceclip_serving.models.onnx_component import OnnxComponent

from ..measure import inprocess
from ..measure.oracle import psnr_db
from ..measure.parity import MAX_PSNR_DB, PHOTO, PROMPT
from ..measure.report import emit

PLACEMENT = CPU


def measure(variant: Variant, precision: str, steps: int, seeds: int, checkpoint: Path | None = None) -> dict[str, Any]:
    """PSNR of each picture, with and without a face, and the bytes of both denoisers."""
    folder = onnx_folder(variant) / precision / DENOISER
    metadata = export_component(Export(variant, DENOISER, precision, checkpoint), folder)
    pipeline = inprocess.load(variant, PLACEMENT, build_repository(variant, PLACEMENT, checkpoint))
    runs = {
        "fp32": pipeline.stages[DENOISER],
        precision: OnnxComponent(folder / ORT_CPU.artifact, components(variant)[DENOISER], ORT_CPU.providers, {}).run,
    }

    def picture(name: str, photo: bytes | None, seed: int) -> Array:
        arrays: dict[str, Array] = {
            "prompt": np.array([PROMPT.encode()], object),
            "seed": np.array([seed], np.int64),
            "num_inference_steps": np.array([steps], np.int32),
        }
        if photo is not None:
            arrays["face_images"] = np.array([photo], object)
        pipeline.stages[DENOISER] = runs[name]
        return np.asarray(Image.open(io.BytesIO(pipeline(arrays)["images"][0])))

    cases = []
    for photo in (PHOTO.read_bytes(), None):
        for seed in range(seeds):
            psnr = min(psnr_db(*(picture(name, photo, seed) for name in runs)), MAX_PSNR_DB)
            cases.append({"face": photo is not None, "seed": seed, "psnr_db": round(psnr, 2)})
            print(f"  {'face' if photo else 'no face'}, seed {seed}: {psnr:.1f} dB", file=sys.stderr)
    reference = onnx_folder(variant) / "fp32" / DENOISER
    return {
        "variant": variant.name,
        "precision": precision,
        "steps": steps,
        "psnr_db_min": min(case["psnr_db"] for case in cases),
        "denoiser_bytes": {"fp32": _bytes(reference), precision: _bytes(folder)},
        "parity": metadata["parity"],
        "notes": metadata["notes"],
        "cases": cases,
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{ORT_CPU.artifact}*"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    parser.add_argument("--precision", choices=PRECISIONS[1:], default="int8w", help="of the denoiser (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=8, help="of each picture (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="with and without a face (default: %(default)s)")
    add_checkpoint(parser, "folder of the official layout (default: seeded weights)")


def run(args: argparse.Namespace) -> int:
    document = measure(VARIANTS[args.variant], args.precision, args.steps, args.seeds, args.checkpoint)
    emit(f"precision-{args.precision}-{args.variant}", document)
    return 0
