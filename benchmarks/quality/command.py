"""`python -m benchmarks quality`: is it the same person, does the picture obey the prompt, is it good; beside the peers.

The variant's pictures are made by the exported graphs and the functions that are served; those of peers, which are not served, by
torch with the same noise and scheduler. People, prompts and judges are those of the rendered world (`quality_world`,
`quality_judges`). `--sweeps` changes one parameter of the request at a time. `--pictures FOLDER --recogniser MODEL.onnx` scores
pictures that any variant made of real people. Writes sheets, curves and an HTML page; the last line is one JSON document.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from export.checkpoint.committed import weights_folder
from export.checkpoint.errors import CheckpointError
from faceclip_serving.contract.variant import Variant
from faceclip_serving.contract.variants import VARIANTS
from training.weights import ADAPTER, JOINT, TEXT_ONLY, available_peers

from ..measure import parity
from ..measure.drawing import save
from ..measure.parity import MAX_PSNR_DB
from ..measure.report import emit
from .judges import Jury, Pictures, read_jury
from .makers import Maker, Settings, exported, timed, trained
from .metrics import psnr_db
from .photographs import score_folder
from .report import samples, strip, write_page
from .sweeps import NAMES, PRECISION, REFERENCES, precisions, references, spread, sweep
from .world import World, make_world

RENDERER = "renderer"
_HALF_CASES = 8
OWN_TEXT_ONLY = "text_only is a model of its own, trained without faces."
BORROWED_TEXT_ONLY = "text_only has no weights of its own: it is the joint model, shown no face."


def usual(variant: Variant) -> dict[str, Any]:
    """The defaults of a request that an evaluation may change."""
    names = ("guidance_scale", "num_inference_steps", "scheduler")
    return {name: getattr(variant.defaults, name) for name in names}


def compare(
    joint: Maker, folder: Path, jury: Jury, world: World, settings: Settings
) -> tuple[dict[str, dict[str, Any] | None], dict[str, Pictures]]:
    """Every peer's columns (None: it has no weights) and pictures, after the renderer's own."""
    cases, present = world.usual, available_peers(folder)
    table: dict[str, dict[str, Any] | None] = {RENDERER: jury.scores(world.drawn.pictures, cases)}
    pictures: dict[str, Pictures] = {}

    def add(peer: str, maker: Maker, shows_face: bool = True) -> None:
        pictures[peer], seconds = timed(maker, cases if shows_face else cases.faceless(), settings, peer)
        table[peer] = {**jury.scores(pictures[peer], cases), "seconds_per_picture": seconds}

    add(JOINT, joint)
    if ADAPTER in present:
        add(ADAPTER, trained(folder, ADAPTER, settings))
    else:
        table[ADAPTER] = None
    add(TEXT_ONLY, trained(folder, TEXT_ONLY, settings) if TEXT_ONLY in present else joint, shows_face=False)
    return table, pictures


def headline(table: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
    """The figures that the document begins with; null for a peer without weights."""
    peers = {peer: table[peer] for peer in (JOINT, ADAPTER, TEXT_ONLY)}
    joint = peers[JOINT]
    assert joint is not None
    return {
        "verification_auc": joint["verification_auc"],
        "id_similarity": {peer: row and row["id_similarity"] for peer, row in peers.items()},
        "text_accuracy": {peer: row and row["text_accuracy"]["mean"] for peer, row in peers.items()},
    }


def smallest_psnr_db(a: Pictures, b: Pictures) -> float:
    """Of pairs of pictures."""
    return round(min(MAX_PSNR_DB, *(psnr_db(one, other) for one, other in zip(a, b, strict=True))), 2)


def measure(variant: Variant, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything; progress on stderr, the report in `arguments.output`."""
    folder = weights_folder(variant, arguments.weights)
    assert folder is not None
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {text}", file=sys.stderr, flush=True)

    say(f"drawing {arguments.people} test people and their {arguments.prompts} scenes each")
    world = make_world(arguments.people, arguments.prompts)
    jury = read_jury(folder, world.kept, arguments.people)
    say("exporting in fp32, or keeping what is there")
    joint = exported(variant, arguments.weights, "fp32", arguments.threads)
    settings = {**usual(variant), **_given(arguments)}
    say("pictures of the variant and of its peers")
    table, pictures = compare(joint, folder, jury, world, settings)
    document: dict[str, Any] = {"variant": variant.name, **headline(table)}
    save(samples(world.usual, pictures, world.drawn.pictures), arguments.output / "samples.png")
    say("the same in fp16, and served")
    few = world.usual.only(range(min(_HALF_CASES, len(world.usual))))
    half = timed(exported(variant, arguments.weights, "fp16", arguments.threads), few, settings, "fp16")[0]
    document["psnr_fp16_db"] = smallest_psnr_db(pictures[JOINT][: len(few)], half)
    document["psnr_served_db"] = None if arguments.no_server else parity.measure(variant, arguments.weights)["psnr_db_min"]
    document["text_only_is"] = OWN_TEXT_ONLY if TEXT_ONLY in available_peers(folder) else BORROWED_TEXT_ONLY
    if arguments.sweeps:
        say(f"sweeps: {', '.join(arguments.sweeps)}")
        document["sweeps"] = _sweeps(variant, joint, jury, world, settings, arguments)
    document["table"] = table
    document["protocol"] = _protocol(arguments, settings)
    say(f"report: {write_page(arguments.output, document, {**usual(variant), **_NEUTRAL})}")
    return document


_NEUTRAL = {"blend_weight": 1.0, "guidance_end": 1.0, "id_start": 0.0, REFERENCES: 1, PRECISION: "fp32"}
"""Defaults of the other swept parameters."""


def _sweeps(
    variant: Variant, joint: Maker, jury: Jury, world: World, settings: Settings, arguments: argparse.Namespace
) -> dict[str, Any]:
    def in_precision(name: str) -> Maker:
        return exported(variant, arguments.weights, "fp32", arguments.threads, denoiser=name)

    curves: dict[str, Any] = {}
    cases = spread(world.usual, arguments.sweep_cases)
    for name in arguments.sweeps:
        if name == REFERENCES:
            shown, (curves[name], pictures) = world.turned, references(joint, jury, world, settings)
        elif name == PRECISION:
            shown, (curves[name], pictures) = cases, precisions(in_precision, jury, cases, settings)
        else:
            shown, (curves[name], pictures) = cases, sweep(joint, jury, cases, settings, name)
        values = [point["value"] for point in curves[name]]
        save(strip(shown, pictures, values), arguments.output / f"strip-{name}.png")
    return curves


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {"guidance_scale": arguments.guidance_scale, "num_inference_steps": arguments.steps}
    return {name: value for name, value in given.items() if value is not None}


def _protocol(arguments: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    return {
        "summary": f"{arguments.people} people that no training saw, {arguments.prompts} prompts each, one reference without a hat."
        " Identity: cosine of an independent recogniser with the mean of three other pictures of the person. Text: share of the"
        " prompt's attributes that a classifier finds. CLIP-T: cosine of the aligned text and image towers. Kernel distance: of"
        " the classifier's features to held-out renders.",
        "people": arguments.people,
        "prompts": arguments.prompts,
        "sweep_cases": arguments.sweep_cases,
        "settings": dict(settings),
        "threads": arguments.threads,
    }


def run(arguments: argparse.Namespace) -> int:
    try:
        if arguments.pictures is not None:
            emit("quality-photographs", score_folder(arguments.pictures, arguments.recogniser))
            return 0
        torch.set_num_threads(arguments.threads or torch.get_num_threads())
        emit(f"quality-{arguments.variant}", measure(VARIANTS[arguments.variant], arguments))
    except (CheckpointError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _sweep_names(names: Iterable[str]) -> list[str]:
    chosen = list(names)
    return list(NAMES) if chosen == ["all"] else chosen


class _Sweeps(argparse.Action):
    """`all`, or names of sweeps."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None) -> None:
        names = _sweep_names(values)
        unknown = [name for name in names if name not in NAMES]
        if unknown or not names:
            parser.error(f"--sweeps: expected all, or some of {', '.join(NAMES)}; got {' '.join(unknown) or 'none'}")
        setattr(namespace, self.dest, names)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    own = [name for name, variant in VARIANTS.items() if variant.weights == "committed"]
    parser.add_argument("--variant", choices=own, default=own[0], help="one that was trained on the rendered world")
    parser.add_argument("--weights", type=Path, help="folder of its weights (default: weights/<variant>)")
    parser.add_argument("--people", type=int, default=20, help="test identities (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=4, help="scenes of each (default: %(default)s)")
    parser.add_argument("--guidance-scale", type=float, help="default: the variant's")
    parser.add_argument("--steps", type=int, help="default: the variant's")
    parser.add_argument("--sweeps", nargs="+", action=_Sweeps, metavar="NAME", help=f"all, or some of {', '.join(NAMES)}")
    parser.add_argument("--sweep-cases", type=int, default=24, help="cases of each point of a sweep (default: %(default)s)")
    parser.add_argument("--no-server", action="store_true", help="leave out the comparison of served pictures")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument(
        "--output", type=Path, default=Path("build/quality"), help="where the report goes (default: %(default)s)"
    )
    parser.add_argument("--pictures", type=Path, help="score pictures of real people: one folder each, with reference.png")
    parser.add_argument("--recogniser", type=Path, help="ONNX face recogniser for --pictures: aligned 112x112 RGB -> a vector")
