"""Which thresholds of `step_cache` keep pictures good enough: PSNR to the fully computed picture against the steps that are saved.

Several prompts, faces and seeds; a threshold is accepted if its worst picture keeps the bound. Runs in one process, on the served
graphs. With seeded stand-in weights the figures say that the mechanism works, and nothing of pictures of trained weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from export.commandline import add_checkpoint, add_variant
from faceclip_serving.contract.numbers import finite
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..measure.example import PHOTO, PROMPT
from ..measure.pictures import Picture, decoded, picture_psnr_db
from ..measure.report import emit, say

PLACEMENT = CPU
THRESHOLDS = (0.025, 0.05, 0.1, 0.2, 0.4)
MIN_PSNR_DB = 30.0
"""Bound of the gate: differences that a viewer has to look for."""
PROMPTS = (PROMPT, "a castle by the sea at dawn")


def measure_step_cache(
    variant: Variant, steps: int, seeds: int, bound_db: float, checkpoint: Path | None = None
) -> dict[str, Any]:
    """For every threshold the worst PSNR and the share of denoiser calls saved, and the largest threshold within the bound."""
    from export.repository.from_nothing import build_repository

    from ..measure import inprocess

    run = inprocess.load(variant, PLACEMENT, build_repository(variant, PLACEMENT, checkpoint))
    cases = [(prompt, photo, seed) for prompt in PROMPTS for photo in (PHOTO.read_bytes(), None) for seed in range(seeds)]

    def picture(prompt: str, photo: bytes | None, seed: int, threshold: float) -> tuple[Picture, int]:
        photos = [] if photo is None else [photo]
        arrays = request_tensors(prompt=prompt, face_images=photos, seed=seed, num_inference_steps=steps, step_cache=threshold)
        return decoded(run(arrays)["images"][0]), run.skipped_steps

    full = [picture(*case, 0.0)[0] for case in cases]
    rows = []
    for threshold in (t for t in THRESHOLDS if t <= variant.limits.step_cache[1]):
        made = [picture(*case, threshold) for case in cases]
        psnr = [picture_psnr_db(one, reference) for (one, _), reference in zip(made, full, strict=True)]
        saved = sum(skipped for _, skipped in made) / (steps * len(cases))
        rows.append({
            "step_cache": threshold,
            "psnr_db_min": round(min(psnr), 2),
            "psnr_db_mean": round(float(np.mean(psnr)), 2),
            "calls_saved": round(saved, 3),
            "accepted": min(psnr) >= bound_db,
        })  # fmt: skip
        say(f"step_cache {threshold}: worst {min(psnr):.1f} dB, {saved:.0%} of the calls saved")
    accepted = [row["step_cache"] for row in rows if row["accepted"]]
    return {
        "variant": variant.name,
        "steps": steps,
        "pictures": len(cases),
        "bound_psnr_db": bound_db,
        "largest_accepted": max(accepted, default=0.0),
        "thresholds": rows,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    parser.add_argument("--steps", type=int, default=50, help="of each picture (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="of each prompt, with and without a face (default: %(default)s)")
    parser.add_argument(
        "--bound", type=finite("dB"), default=MIN_PSNR_DB, metavar="DB", help="least PSNR (default: %(default)s)"
    )
    add_checkpoint(parser, "folder of the official layout (default: seeded weights)")


def run(args: argparse.Namespace) -> int:
    emit(
        f"step-cache-{args.variant}",
        measure_step_cache(VARIANTS[args.variant], args.steps, args.seeds, args.bound, args.checkpoint),
    )
    return 0
