"""Is a served picture the reference's picture? Served files against diffusers' own pipeline, same weights and seed."""

from __future__ import annotations

import argparse
import itertools
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.commandline import add_checkpoint, add_variant
from faceclip_serving.contract.components import components
from faceclip_serving.contract.names import FACE_ENCODER, PREPARE, TEXT_ENCODER
from faceclip_serving.contract.placements import CPU, ONNX_FILE, ORT_CPU
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..measure.example import PHOTO, PROMPT
from ..measure.pictures import decoded, picture_psnr_db
from ..measure.report import emit, say
from ..measure.running import PLAIN, serving

if TYPE_CHECKING:
    from faceclip import FaceCLIPPipeline

    from ..measure.oracle import Oracle, Rows

SCHEDULERS = (
    "EulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
)
"""Those of them are tried that fit the variant."""
PLACEMENT = CPU


def sizes(variant: Variant) -> list[tuple[int, int]]:
    """The default size and, where the variant takes several, a smaller, odd one."""
    smallest, multiple = variant.limits.size[0], variant.limits.size_multiple

    def smaller(side: int) -> int:
        return max(smallest, (side // 2 // multiple + 1) * multiple)

    height, width = variant.defaults.height, variant.defaults.width
    return list(dict.fromkeys([(height, width), (smaller(height), smaller(width))]))


def encoder_error(variant: Variant, oracle: Oracle, repository: Path, rows: Rows) -> float:
    """Largest absolute difference of the exported encoders' conditioning from the torch encoder's."""
    from faceclip_serving.models.onnx_component import OnnxComponent
    from faceclip_serving.models.prepare import NO_FACE

    image, exist, ids = rows
    nets = components(variant)
    run = {
        name: OnnxComponent(repository / CPU.folder(name) / ONNX_FILE, nets[name], ORT_CPU.providers, {}).run
        for name in (FACE_ENCODER, TEXT_ENCODER)
    }
    features = run[FACE_ENCODER]({"aligned_faces": image})
    fused = {tensor.name: features[tensor.name] for tensor in variant.fused_features}
    index = np.where(exist, np.arange(len(exist)), NO_FACE)[:, None].astype(np.int64)
    found = run[TEXT_ENCODER]({**ids, "face_index": index, **fused})
    expected = oracle.encode(image, exist, ids)
    return max(float(np.abs(found[t.name] - e.numpy()).max()) for t, e in zip(variant.conditioning, expected, strict=True))


def measure_parity(variant: Variant, checkpoint: Path | None = None) -> dict[str, Any]:
    """`parity_of` a server of its own."""
    from ..measure.oracle import load_oracle

    with serving(variant, PLACEMENT, checkpoint, settings=PLAIN) as (server, pipe):
        return parity_of(load_oracle(variant, checkpoint), server.repository, pipe)


def parity_of(oracle: Oracle, repository: Path, pipe: FaceCLIPPipeline, steps: int = 6) -> dict[str, Any]:
    """Every combination of scheduler, size and face; PSNR of each served picture to the reference's."""
    from ..measure.oracle import reference_rows

    variant = oracle.variant
    guidance_scale = variant.defaults.guidance_scale
    cases = []
    errors = []
    for photo in (PHOTO.read_bytes(), None):
        rows = reference_rows(variant, repository / PREPARE / "1", photo, PROMPT)
        errors.append(encoder_error(variant, oracle, repository, rows))
        reference = partial(oracle.picture, *oracle.encode(*rows), steps=steps, guidance_scale=guidance_scale, seed=1)
        face: dict[str, Any] = {"face_image": photo} if photo else {}
        served = partial(
            pipe, PROMPT, **face, num_inference_steps=steps, guidance_scale=guidance_scale, seed=1, output_type="bytes"
        )
        schedulers = [name for name in SCHEDULERS if name in variant.schedulers]
        for scheduler, (height, width) in itertools.product(schedulers, sizes(variant)):
            options: dict[str, Any] = {"scheduler": scheduler, "height": height, "width": width}
            psnr = picture_psnr_db(decoded(served(**options).images[0]), reference(**options))
            cases.append({**options, "face": photo is not None, "psnr_db": round(psnr, 2)})
            say(f"{scheduler} {height}x{width} {'face' if photo else 'no face'}: {psnr:.1f} dB")
    return {
        "variant": variant.name,
        "psnr_db_min": min(case["psnr_db"] for case in cases),
        "encoder_max_abs_error": max(errors),
        "cases": cases,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    add_checkpoint(parser, "folder of the official layout (default: the variant's own or seeded weights)")


def run(args: argparse.Namespace) -> int:
    emit(f"parity-{args.variant}", measure_parity(VARIANTS[args.variant], args.checkpoint))
    return 0
