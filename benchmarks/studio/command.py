"""The gateway's page in a real Chromium, before a real server with `nano`: how soon it is painted, how much is loaded, what axe finds.

With `--pictures docs`, the pictures of docs/studio.md are made again. Ends with code 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.sdxl import NANO

from ..measure.report import emit, say
from ..measure.running import ServingError
from .browser import DESKTOP, MISSING, PHONE, ROOMS, SERIOUS, browser, chromium, visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIZES = {"desktop": DESKTOP, "phone": PHONE}
COLOURS = ("light", "dark")
AT_MOST = {"first_paint_ms_worst": 1000.0, "bytes": 300_000, "axe_serious": 0, "asked_elsewhere": 0, "complaints": 0}
"""What is promised; the first paint on loopback."""


def first_paints(opened: Browser, url: str, visits: int) -> tuple[list[float], int]:
    """Milliseconds from the beginning of a visit by a browser that has nothing of the page yet, and the bytes that are loaded."""
    paints, loaded = [], 0
    for _ in range(visits):
        with visit(opened, url, **DESKTOP) as seen:
            seen.open()
            paints.append(seen.first_paint_ms)
            loaded = seen.bytes
    return paints, loaded


def axe(opened: Browser, url: str) -> tuple[dict[str, list[dict[str, Any]]], list[str], list[str]]:
    """What axe finds in each room, of each size, in both colours, and in a page that was used; complaints; what was asked elsewhere."""
    from .tour import used

    found, complaints, elsewhere = {}, [], []
    for size, options in SIZES.items():
        for colour in COLOURS:
            with visit(opened, url, color_scheme=colour, **options) as seen:
                for room in ROOMS:
                    seen.open(room)
                    found[f"{room}, {size}, {colour}"] = seen.findings()
                used(seen)
                found[f"used, {size}, {colour}"] = seen.findings()
                complaints += seen.complaints
                elsewhere += seen.elsewhere
    return found, complaints, elsewhere


def measure(url: str, visits: int, pictures: Path | None) -> dict[str, Any]:
    from .tour import save, tour

    with browser() as opened:
        say("first paint")
        paints, loaded = first_paints(opened, url, visits)
        say("axe")
        found, complaints, elsewhere = axe(opened, url)
        files = {}
        if pictures is not None:
            for name, screens in tour(opened, url):
                file = save(pictures, name, screens)
                say(f"{file}: {file.stat().st_size} bytes")
                files[file.name] = file.stat().st_size
        version = opened.version
    every = [each for findings in found.values() for each in findings]
    return {
        "chromium": version,
        "first_paint_ms": [round(each, 1) for each in paints],
        "first_paint_ms_median": round(statistics.median(paints), 1),
        "first_paint_ms_worst": round(max(paints), 1),
        "bytes": loaded,
        "axe_pages": len(found),
        "axe_serious": sum(each["impact"] in SERIOUS for each in every),
        "axe_others": sorted({f"{each['impact']}: {each['id']}" for each in every if each["impact"] not in SERIOUS}),
        "axe": {page: findings for page, findings in found.items() if findings},
        "complaints": len(complaints),
        "asked_elsewhere": len(elsewhere),
        "pictures": files,
    }


def broken(told: Mapping[str, Any]) -> Sequence[str]:
    """The promises that did not hold, in words."""
    return [f"{name} is at most {most}, not {told[name]}" for name, most in AT_MOST.items() if told[name] > most]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--visits", type=int, default=10, help="for the first paint (default: %(default)s)")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="make pictures of the page there, such as docs")


def run(args: argparse.Namespace) -> int:
    from export.repository.from_nothing import build_repository  # torch

    from ..gateway.running import Gateway, Server, started

    if chromium() is None:
        raise ServingError(MISSING)
    with tempfile.TemporaryDirectory(prefix="studio-") as folder:
        server = Server(build_repository(NANO, CPU), Path(folder) / "server.log", settings=())
        metrics = f"http://127.0.0.1:{server.ports.metrics}/metrics"
        gateway = Gateway(server.url, Path(folder) / "data", Path(folder) / "gateway.log", "--server-metrics", metrics)
        with started(server, gateway):
            gateway.wait_ready(of_server=True)
            told = measure(gateway.url, args.visits, args.pictures)
    failed = broken(told)
    emit("studio-nano", {"variant": NANO.name, **told, "promises_broken": failed})
    for text in failed:
        say(f"broken: {text}")
    return 1 if failed else 0
