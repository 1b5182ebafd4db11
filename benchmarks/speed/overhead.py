"""What serving costs: a served request against the same graphs and functions called in one process, in the same run.

And what marks and checks cost: the same request to a second server, with the settings that servers have by default.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.commandline import add_checkpoint, add_placement, add_variant
from faceclip_serving.contract.placements import CPU, Placement, placement_of
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..measure.example import PHOTO, PROMPT
from ..measure.pictures import decoded, picture_psnr_db
from ..measure.report import emit, result_name
from ..measure.running import PLAIN, serving
from .compare import SMALLEST_PSNR_DB, DifferentWork


def measure_overhead(
    variant: Variant, repeats: int, checkpoint: Path | None = None, placement: Placement = CPU, steps: int | None = None
) -> dict[str, Any]:
    """Alternates served and in-process requests; medians, their ratio, and the seconds that each stage takes in both. `steps`: of each
    request; None: the variant's own.

    Raises `DifferentWork` where the two pictures differ: to the bit on the CPU, elsewhere by more than kernels that are chosen by trial do.
    """
    from ..measure import inprocess

    photo, steps = PHOTO.read_bytes(), steps or variant.defaults.num_inference_steps
    asked: dict[str, Any] = {"seed": 1, "num_inference_steps": steps}
    plain, usual, alone = _Times(), _Times(), _Times()
    with (
        serving(variant, placement, checkpoint, settings=PLAIN) as (server, pipe),
        serving(variant, placement, checkpoint) as (_, usual_pipe),
    ):
        local = inprocess.load(variant, placement, server.repository)
        arrays = request_tensors(prompt=PROMPT, face_images=[photo], **asked)
        for repeat in range(repeats + 1):
            first = time.perf_counter()
            result = pipe(PROMPT, face_image=photo, output_type="bytes", **asked)
            second = time.perf_counter()
            expected = local(arrays)
            third = time.perf_counter()
            marked = usual_pipe(PROMPT, face_image=photo, output_type="bytes", **asked)
            fourth = time.perf_counter()
            if not _same(result.images[0], expected["images"][0], placement):
                raise DifferentWork("the served picture differs from that of the same graphs in this process")
            if repeat:  # the first of each is a warm-up
                plain.add(second - first, result.details["timings_s"])
                alone.add(third - second, local.seconds)
                usual.add(fourth - third, marked.details["timings_s"])
    return {
        "variant": variant.name,
        "placement": placement.name,
        "repeats": repeats,
        "steps": steps,
        "served_over_inprocess": round(plain.median / alone.median, 3),
        "served_s": round(plain.median, 4),
        "inprocess_s": round(alone.median, 4),
        "served_stages_s": plain.stages,
        "inprocess_stages_s": alone.stages,
        "outside_the_models_s": round(plain.median - plain.stages["total"], 4),
        "with_marks_and_checks_s": round(usual.median, 4),
        "with_marks_and_checks_stages_s": usual.stages,
        "marks_and_checks_s": round(usual.median - plain.median, 4),
        "with_marks_and_checks_over_without": round(usual.median / plain.median, 3),
    }


def _same(served: bytes, alone: bytes, placement: Placement) -> bool:
    return served == alone or (placement != CPU and picture_psnr_db(decoded(served), decoded(alone)) >= SMALLEST_PSNR_DB)


class _Times:
    """Seconds of repeated requests of one kind, and of their stages."""

    def __init__(self) -> None:
        self._total: list[float] = []
        self._stages: list[Mapping[str, float]] = []

    def add(self, total: float, stages: Mapping[str, float]) -> None:
        self._total.append(total)
        self._stages.append(stages)

    @property
    def median(self) -> float:
        return statistics.median(self._total)

    @property
    def stages(self) -> dict[str, float]:
        """Medians, by the name of the stage."""
        return {stage: round(statistics.median(each[stage] for each in self._stages), 4) for stage in self._stages[0]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    add_placement(parser)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--steps", type=int, help="of each request (default: the variant's)")
    add_checkpoint(parser, "folder of the official layout (default: the variant's own or seeded weights)")


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    placement = placement_of(variant, args.placement)
    measured = measure_overhead(variant, args.repeats, args.checkpoint, placement, args.steps)
    emit(result_name("overhead", variant.name, placement.name), measured)
    return 0
