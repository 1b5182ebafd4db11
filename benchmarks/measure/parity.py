"""Is a served picture the reference's picture? Served files against diffusers' own pipeline, same weights and seed."""

from __future__ import annotations

import argparse
import itertools
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from export.commandline import add_checkpoint, add_variant
from faceclip import FaceCLIPPipeline
from faceclip_serving.contract.architectures import FACE_SIZE
from faceclip_serving.contract.placements import CPU, ORT_CPU
from faceclip_serving.contract.signatures import FACE_ENCODER, PREPARE, TEXT_ENCODER, components
from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variant import Variant
from faceclip_serving.contract.variants import VARIANTS
from faceclip_serving.face.detectors import detector_in
from faceclip_serving.face.prepare import prepare_face
from faceclip_serving.models.onnx_component import OnnxComponent
from faceclip_serving.models.prepare import NO_FACE
from faceclip_serving.models.prompts import encode_prompt, load_tokenizer

from .oracle import Oracle, load_oracle, psnr_db
from .report import emit
from .running import serving

PHOTO = Path(__file__).resolve().parents[2] / "examples" / "astronaut.jpg"
PROMPT = "portrait of an astronaut, studio light"
SCHEDULERS = (
    "EulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
)
"""Those of them are tried that fit the variant."""
PLACEMENT = CPU
MAX_PSNR_DB = 200.0
"""Said of equal pictures: JSON has no infinity."""


def sizes(variant: Variant) -> list[tuple[int, int]]:
    """The default size and, where the variant takes several, a smaller, odd one."""
    smallest, multiple = variant.limits.size[0], variant.limits.size_multiple

    def smaller(side: int) -> int:
        return max(smallest, (side // 2 // multiple + 1) * multiple)

    height, width = variant.defaults.height, variant.defaults.width
    return list(dict.fromkeys([(height, width), (smaller(height), smaller(width))]))


Rows = tuple[Array, Array, dict[str, Array]]
"""aligned_faces, face_exist, and the ids of every tokenizer by the name of its input."""


def reference_rows(variant: Variant, prepare_folder: Path, photo: bytes | None, prompt: str) -> Rows:
    """The (negative, positive) rows, as the published inference makes them."""
    image = np.zeros((2, 3, FACE_SIZE, FACE_SIZE), np.float32)
    if photo is not None:
        image[1] = prepare_face(photo, 0, False, detector_in(prepare_folder)).image
    texts = ((variant.defaults.negative_prompt, False), (prompt, photo is not None))
    ids = {}
    for tokens in variant.tokens:
        tokenizer = load_tokenizer(prepare_folder / tokens.tokenizer)
        ids[tokens.input] = np.stack([encode_prompt(tokenizer, tokens, text, prefixed).ids for text, prefixed in texts])
    return image, np.array([False, photo is not None]), ids


def encoder_error(variant: Variant, oracle: Oracle, repository: Path, rows: Rows) -> float:
    """Largest absolute difference of the exported encoders' conditioning from the torch encoder's."""
    image, exist, ids = rows
    nets = components(variant)
    run = {
        name: OnnxComponent(repository / name / "1" / ORT_CPU.artifact, nets[name], ORT_CPU.providers, {}).run
        for name in (FACE_ENCODER, TEXT_ENCODER)
    }
    features = run[FACE_ENCODER]({"aligned_faces": image})
    fused = {tensor.name: features[tensor.name] for tensor in variant.fused_features}
    index = np.where(exist, np.arange(len(exist)), NO_FACE)[:, None].astype(np.int64)
    found = run[TEXT_ENCODER]({**ids, "face_index": index, **fused})
    expected = oracle.encode(image, exist, ids)
    return max(float(np.abs(found[t.name] - e.numpy()).max()) for t, e in zip(variant.conditioning, expected, strict=True))


def measure(variant: Variant, checkpoint: Path | None = None) -> dict[str, Any]:
    """A server of its own for `compare`."""
    with serving(variant, PLACEMENT, checkpoint) as (server, pipe):
        return compare(load_oracle(variant, checkpoint), server.repository, pipe)


def compare(oracle: Oracle, repository: Path, pipe: FaceCLIPPipeline, steps: int = 6) -> dict[str, Any]:
    """Every combination of scheduler, size and face; PSNR of each served picture to the reference's."""
    variant = oracle.variant
    guidance_scale = variant.defaults.guidance_scale
    cases = []
    errors = []
    for photo in (PHOTO.read_bytes(), None):
        rows = reference_rows(variant, repository / PREPARE / "1", photo, PROMPT)
        errors.append(encoder_error(variant, oracle, repository, rows))
        reference = partial(oracle.picture, *oracle.encode(*rows), steps=steps, guidance_scale=guidance_scale, seed=1)
        schedulers = [name for name in SCHEDULERS if name in variant.schedulers]
        for scheduler, (height, width) in itertools.product(schedulers, sizes(variant)):
            options: dict[str, Any] = {"scheduler": scheduler, "height": height, "width": width}
            face: dict[str, Any] = {"face_image": photo} if photo else {}
            settings: dict[str, Any] = {
                "num_inference_steps": steps,
                "guidance_scale": guidance_scale,
                "seed": 1,
                "output_type": "np",
            }
            served = pipe(PROMPT, **face, **options, **settings)
            picture = np.asarray((served.images[0] * 255).round(), np.uint8)
            psnr = psnr_db(picture, reference(**options))
            cases.append({**options, "face": photo is not None, "psnr_db": round(min(psnr, MAX_PSNR_DB), 2)})
            print(f"  {scheduler} {height}x{width} {'face' if photo else 'no face'}: {psnr:.1f} dB", file=sys.stderr)
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
    emit(f"parity-{args.variant}", measure(VARIANTS[args.variant], args.checkpoint))
    return 0
