"""The evaluation of a variant: its pictures and its peers', judged; the same in half precision, and served; sweeps; a report.

The variant's pictures are made by the exported graphs and the functions that are served, those of peers, which are not served, by
torch with the same noise and scheduler.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from export.checkpoint.committed import weights_folder
from faceclip_serving.contract.variants.variant import Variant
from training.learning.few_steps import REQUEST
from training.run.weights import ADAPTER, FEW_STEPS, JOINT, TEXT_ONLY, available_peers

from ..measure.drawing import save
from ..measure.pictures import picture_psnr_db
from .judges import Jury, Pictures, read_jury
from .makers import Maker, Settings, exported, trained
from .parity import measure_parity
from .parts import Parts, rendered_parts
from .report import samples, strip, write_page
from .sweeps import PRECISION, REFERENCES, made_precisions, precisions, references, spread, sweep, timed
from .world import World, make_world

RENDERER = "renderer"
_HALF_CASES = 8
OWN_TEXT_ONLY = "text_only is a model of its own, trained without faces."
BORROWED_TEXT_ONLY = "text_only has no weights of its own: it is the joint model, shown no face."
_NEUTRAL = {"blend_weight": 1.0, "guidance_end": 1.0, "id_start": 0.0, REFERENCES: 1, PRECISION: "fp32"}
"""Defaults of the swept parameters that `usual` leaves out."""


def usual(variant: Variant) -> dict[str, Any]:
    """The defaults of a request that an evaluation may change."""
    names = ("guidance_scale", "num_inference_steps", "scheduler")
    return {name: getattr(variant.defaults, name) for name in names}


def compare_makers(
    joint: Maker, folder: Path, jury: Jury, parts: Parts, world: World, settings: Settings
) -> tuple[dict[str, dict[str, Any] | None], dict[str, Pictures]]:
    """Every peer's columns (None: it has no weights) and pictures, after the renderer's own."""
    cases, present = world.usual, available_peers(folder)
    drawn = world.drawn.pictures
    table: dict[str, dict[str, Any] | None] = {RENDERER: {**jury.scores(drawn, cases), **parts.shares(drawn)}}
    pictures: dict[str, Pictures] = {}

    def add(peer: str, maker: Maker, shows_face: bool = True, others: Settings | None = None) -> None:
        pictures[peer], seconds = timed(maker, cases if shows_face else cases.faceless(), {**settings, **(others or {})}, peer)
        table[peer] = {**jury.scores(pictures[peer], cases), **parts.shares(pictures[peer]), "seconds_per_picture": seconds}

    add(JOINT, joint)
    if FEW_STEPS in present:
        add(FEW_STEPS, trained(folder, FEW_STEPS, settings), others=REQUEST)
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
    return round(min(picture_psnr_db(one, other) for one, other in zip(a, b, strict=True)), 2)


def evaluate(variant: Variant, arguments: argparse.Namespace, output: Path) -> dict[str, Any]:
    """Everything; progress on stderr, the report in the folder `output`."""
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
    settings = settings_of(variant, arguments)
    say("pictures of the variant and of its peers")
    table, pictures = compare_makers(joint, folder, jury, rendered_parts(), world, settings)
    document: dict[str, Any] = {"variant": variant.name, **headline(table)}
    save(samples(world.usual, pictures, world.drawn.pictures), output / "samples.png")
    say("the same in fp16, and served")
    few = world.usual.only(range(min(_HALF_CASES, len(world.usual))))
    half = timed(exported(variant, arguments.weights, "fp16", arguments.threads), few, settings, "fp16")[0]
    document["psnr_fp16_db"] = smallest_psnr_db(pictures[JOINT][: len(few)], half)
    document["psnr_served_db"] = None if arguments.no_server else measure_parity(variant, arguments.weights)["psnr_db_min"]
    document["text_only_is"] = OWN_TEXT_ONLY if TEXT_ONLY in available_peers(folder) else BORROWED_TEXT_ONLY
    if arguments.sweeps:
        say(f"sweeps: {', '.join(arguments.sweeps)}")
        document["sweeps"] = _sweeps(variant, joint, jury, world, settings, arguments, output)
    document["table"] = table
    document["protocol"] = _protocol(arguments, settings)
    write_page(output, document, {**usual(variant), **_NEUTRAL})
    return document


def _sweeps(
    variant: Variant, joint: Maker, jury: Jury, world: World, settings: Settings, arguments: argparse.Namespace, output: Path
) -> dict[str, Any]:
    def in_precision(name: str) -> Maker:
        return exported(variant, arguments.weights, "fp32", arguments.threads, denoiser=name)

    curves: dict[str, Any] = {}
    cases = spread(world.usual, arguments.sweep_cases)
    for name in arguments.sweeps:
        if name == REFERENCES:
            shown, (curves[name], pictures) = world.turned, references(joint, jury, world, settings)
        elif name == PRECISION:
            names = made_precisions(variant)
            shown, (curves[name], pictures) = cases, precisions(names, in_precision, jury, cases, settings)
        else:
            shown, (curves[name], pictures) = cases, sweep(joint, jury, cases, settings, name)
        values = [point["value"] for point in curves[name]]
        save(strip(shown, pictures, values), output / f"strip-{name}.png")
    return curves


def settings_of(variant: Variant, arguments: argparse.Namespace) -> dict[str, Any]:
    """Those that the command line gives, and the variant's defaults."""
    given = {"guidance_scale": arguments.guidance_scale, "num_inference_steps": arguments.steps}
    return {**usual(variant), **{name: value for name, value in given.items() if value is not None}}


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
