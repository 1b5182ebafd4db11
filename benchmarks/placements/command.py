"""Serves every placement of every family by a real server, and asks each for every kind of request.

A placement whose card is not here is emulated: ONNX Runtime's CPU provider behind the same rows, sizes, tiles and bounds. So this
tells whether a placement serves, and nothing of how fast it is or what memory it takes. The variants are tiny; sizes are the
placements' own, up to 1344 pixels. Where pictures are decoded whole, the largest square is left out: it would take 12 GB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from export.commandline import add_placement
from faceclip_serving.contract.placements import PlacementError, placements
from faceclip_serving.contract.variants.table import VARIANTS

from ..measure.report import emit, say
from ..measure.table import table
from .cases import CASES, LARGEST, Case, Served, WrongAnswer, all_served, cancels, refuses_larger, require_alike

DEFAULT = ("tiny-sdxl", "tiny-flux")
SMALL = tuple(name for name in VARIANTS if VARIANTS[name].weights != "checkpoint")


def tried(served: Served) -> tuple[list[dict[str, Any]], dict[str, list[Any]]]:
    """What became of each case on one placement, and the pictures of those that were served."""
    wanted: dict[str, Case] = {**CASES, **({"largest": LARGEST} if served.placement.vae_tile else {})}
    functions: dict[str, Any] = {name: case.run for name, case in wanted.items()}
    functions |= {"beyond the largest": refuses_larger, "a stream is cancelled": cancels}
    rows: list[dict[str, Any]] = [{"case": "probe", "served": True}]  # else the server would not be ready
    pictures = {}
    for name, function in functions.items():
        row: dict[str, Any] = {"case": name, "served": True}
        try:
            made = function(served)
        except Exception as error:  # noqa: BLE001 - whatever it is belongs into the table, and the other cases are wanted too
            row |= {"served": False, "error": f"{type(error).__name__}: {error}"}
        else:
            if made is not None:
                pictures[name] = made
        rows.append(row)
    return rows, pictures


def matrix(variant_name: str, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """A row for each (placement, case) of a variant."""
    variant = VARIANTS[variant_name]
    rows: list[dict[str, Any]] = []
    made: dict[str, dict[str, list[Any]]] = {}
    say(f"{variant.name}: exporting what is missing, assembling, starting a server")
    with tempfile.TemporaryDirectory() as folder, all_served(variant, Path(folder), names) as served:
        for name, each in served.items():
            say(f"{variant.name} on {each.placement.label}")
            found, made[name] = tried(each)
            about = {"variant": variant.name, "placement": name, "emulated": dict(each.placement.emulated)}
            rows += [{**about, **row} for row in found]
        placed = {name: each.placement for name, each in served.items()}
    for case in (name for name, case in CASES.items() if case.sides is None):  # else each placement has a size of its own
        pictures = {name: found[case] for name, found in made.items() if case in found}
        try:
            near = require_alike(pictures, placed)
        except WrongAnswer as error:
            rows.append(
                {"variant": variant.name, "placement": "all", "case": f"{case}: alike", "served": False, "error": str(error)}
            )
        else:
            for row in rows:
                if row["case"] == case and row["placement"] in near:
                    row["psnr_db_to_more_rows"] = near[row["placement"]]
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variant", choices=SMALL, action="append", help=f"may be repeated (default: {' and '.join(DEFAULT)})")
    add_placement(parser, None, "only this one (default: all)")


def run(args: argparse.Namespace) -> int:
    names = (args.placement,) if args.placement else ()
    variants = [name for name in args.variant or DEFAULT if not names or args.placement in placements(VARIANTS[name])]
    rows = [row for variant in variants for row in matrix(variant, names)]
    if not rows:
        raise PlacementError(f"placement: none of {', '.join(args.variant or DEFAULT)} has '{args.placement}'")
    failed = [row for row in rows if not row["served"]]
    print(_drawn(rows), file=sys.stderr)
    for row in failed:
        say(f"FAILED {row['variant']} on {row['placement']}, {row['case']}: {row['error']}")
    emit("placements", {"served": len(rows) - len(failed), "failed": len(failed), "cases": rows})
    return 1 if failed else 0


def _drawn(rows: list[dict[str, Any]]) -> str:
    """A line per placement, a column per case."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    placed = list(dict.fromkeys((row["variant"], row["placement"]) for row in rows))
    by_key = {(row["variant"], row["placement"], row["case"]): "served" if row["served"] else "FAILED" for row in rows}
    lines = [
        [variant, placement, *(by_key.get((variant, placement, case), "") for case in cases)] for variant, placement in placed
    ]
    return table(["variant", "placement", *cases], lines)
