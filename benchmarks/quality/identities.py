"""What a sealed identity saves: time to a picture with `identity` against the photograph that it was made of, in turns; and what several
photographs lose in it, since features are averaged there, and conditioning otherwise.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import numpy as np

from export.commandline import add_variant
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.sdxl import NANO
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant
from training.pictures.dataset import SPLITS
from training.world.people import sample_identity, sample_scene

from ..measure.example import PHOTO, PROMPT
from ..measure.pictures import decoded, png
from ..measure.report import emit, say
from ..measure.running import PLAIN, serving
from ..measure.timing import seconds_of
from .edits import WEIGHTS
from .sweeps import mean_and_error

WAYS = ("photograph", "identity")
_KEPT = 3
"""Pictures of each person by which the judge knows them, and as many references."""


def measure_time(pipe: Any, repeats: int) -> dict[str, Any]:
    """Medians of requests in turns, seconds: of the caller's clock, of two stages, and of the difference of each pair.

    Nothing is remembered, as if each were somebody new. Raises `RuntimeError` where the pictures of both differ.
    """
    made: list[Any] = []
    sealing = [seconds_of(lambda: made.append(pipe.identity(PHOTO, remember=False))) for _ in range(3)]
    asked = {"photograph": {"face_image": PHOTO.read_bytes()}, "identity": {"identity": made[-1]}}
    told: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for repeat in range(repeats + 1):
        files = {}
        for way in WAYS[:: 1 if repeat % 2 else -1]:
            results: list[Any] = []
            call = {**asked[way], "seed": 1, "remember": False, "output_type": "bytes"}
            seconds = seconds_of(lambda call=call, results=results: results.append(pipe(PROMPT, **call)))  # type: ignore[misc]
            files[way] = results[0].images[0]
            if repeat:  # the first of each is a warm-up
                told[way].append({"seconds": seconds, **results[0].details["timings_s"]})
        if files["photograph"] != files["identity"]:
            raise RuntimeError("the picture of the identity differs from that of its photograph")
    pairs = [one["seconds"] - other["seconds"] for one, other in zip(*(told[way] for way in WAYS), strict=True)]
    return {
        "repeats": repeats,
        "file_bytes": len(made[-1].data),
        "sealing_s": round(statistics.median(sealing), 4),
        "saved_s": round(statistics.median(pairs), 4),
        **{
            way: {
                stage: round(statistics.median(each[stage] for each in told[way]), 4)
                for stage in ("seconds", "prepare", "encode")
            }
            for way in WAYS
        },
    }


def measure_references(pipe: Any, people: int) -> dict[str, Any]:
    """Cosine to the person of pictures by several references, together in a request and sealed in an identity; test people of `nano`."""
    from training.learning.judges import recognise  # here, since torch takes seconds
    from training.run.weights import read_judges

    from .world import shoot

    recogniser, _ = read_judges(WEIGHTS)
    scores: dict[str, list[float]] = {way: [] for way in (*WAYS, "gain")}
    for number in range(SPLITS["test"], SPLITS["test"] + people):
        shots = shoot([(sample_identity(number), sample_scene("references", number, i)) for i in range(2 * _KEPT)])
        person = recognise(recogniser, shots.pictures[:_KEPT]).numpy().mean(axis=0)
        photos = [png(crop) for crop in shots.crops[_KEPT:]]
        ways = {
            "photograph": {"face_images": photos, "face_aligned": True},
            "identity": {"identity": pipe.identity(photos, face_aligned=True)},
        }
        for way, keywords in ways.items():
            file = pipe("A portrait of a person.", seed=number, output_type="bytes", **keywords).images[0]
            found = recognise(recogniser, decoded(file)[None]).numpy()[0]
            scores[way].append(float(found @ person / (np.linalg.norm(found) * np.linalg.norm(person))))
        scores["gain"].append(scores["identity"][-1] - scores["photograph"][-1])
        say(f"{number}: " + ", ".join(f"{way} {of[-1]:.3f}" for way, of in scores.items()))
    return {"people": people, "references": _KEPT, **{way: mean_and_error(np.array(of)) for way, of in scores.items()}}


def measure(variant: Variant, repeats: int, people: int) -> dict[str, Any]:
    """Both, on a server of its own."""
    with serving(variant, CPU, settings=PLAIN) as (_, pipe):
        found = {"variant": variant.name, "paired": measure_time(pipe, repeats)}
        return found | ({"references": measure_references(pipe, people)} if people and variant is NANO else {})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    parser.add_argument("--repeats", type=int, default=30, metavar="N", help="pairs of requests (default: %(default)s)")
    parser.add_argument(
        "--people", type=int, default=24, metavar="N", help="of nano, with several references (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    emit(f"identities-{args.variant}", measure(VARIANTS[args.variant], args.repeats, args.people))
    return 0
