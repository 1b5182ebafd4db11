"""What serving costs: a served request against the same graphs and functions called in one process, in the same run."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from export.commandline import add_checkpoint, add_variant
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..measure.example import PHOTO, PROMPT
from ..measure.report import emit
from ..measure.running import PLAIN, serving
from .compare import DifferentWork

PLACEMENT = CPU


def measure_overhead(variant: Variant, repeats: int, checkpoint: Path | None = None) -> dict[str, Any]:
    """Alternates served and in-process requests; medians, their ratio, and the seconds that each stage takes in both.

    Raises `DifferentWork` where the two pictures differ.
    """
    from ..measure import inprocess

    photo = PHOTO.read_bytes()
    served_s, local_s, served_stages, local_stages = [], [], [], []
    with serving(variant, PLACEMENT, checkpoint, settings=PLAIN) as (server, pipe):
        local = inprocess.load(variant, PLACEMENT, server.repository)
        arrays = request_tensors(prompt=PROMPT, face_images=[photo], seed=1)
        for repeat in range(repeats + 1):
            started = time.perf_counter()
            result = pipe(PROMPT, face_image=photo, seed=1, output_type="bytes")
            between = time.perf_counter()
            expected = local(arrays)
            ended = time.perf_counter()
            if result.images[0] != expected["images"][0]:
                raise DifferentWork("the served picture differs from that of the same graphs in this process")
            if repeat:  # the first of each is a warm-up
                served_s.append(between - started)
                local_s.append(ended - between)
                served_stages.append(result.details["timings_s"])
                local_stages.append(local.seconds)
    served, alone = statistics.median(served_s), statistics.median(local_s)
    return {
        "variant": variant.name,
        "repeats": repeats,
        "served_over_inprocess": round(served / alone, 3),
        "served_s": round(served, 4),
        "inprocess_s": round(alone, 4),
        "served_stages_s": _medians(served_stages),
        "inprocess_stages_s": _medians(local_stages),
        "outside_the_models_s": round(served - _medians(served_stages)["total"], 4),
    }


def _medians(stages: list[dict[str, float]]) -> dict[str, float]:
    return {stage: round(statistics.median(each[stage] for each in stages), 4) for stage in stages[0]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    parser.add_argument("--repeats", type=int, default=20)
    add_checkpoint(parser, "folder of the official layout (default: the variant's own or seeded weights)")


def run(args: argparse.Namespace) -> int:
    emit(f"overhead-{args.variant}", measure_overhead(VARIANTS[args.variant], args.repeats, args.checkpoint))
    return 0
