"""One person in prompted scenes, from nothing: export, assemble, serve, generate, and a contact sheet. `make demo` runs this.

The pictures are asked for at once, and the server takes their steps together. The last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from benchmarks.measure.drawing import save, sheet
from benchmarks.measure.pictures import Picture
from export.commandline import exit_code
from export.outputs import require_file
from export.paths import BUILD
from export.repository.from_nothing import build_repository
from faceclip import FaceCLIPError, FaceCLIPOutput, FaceCLIPPipeline
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.sdxl import NANO
from faceclip_serving.contract.variants.table import VARIANTS
from server.probe import server_version
from server.process import Ports, TritonServer
from server.signals import interruptible

HERE = Path(__file__).resolve().parent
OUTPUT = Path("out/demo.png")
PLACEMENT = CPU
CELL = 224
"""Pixels per picture of the contact sheet."""


class DemoError(UserError):
    """What is asked for cannot be shown; the message says why."""


@dataclass(frozen=True)
class Demo:
    """What is asked for: a photograph and the scenes."""

    photo: Path
    aligned: bool
    """The photograph is an aligned crop already."""
    prompts: tuple[str, ...]
    seed: int = 7
    steps: int | None = None
    """None: the variant's own."""


PHOTOGRAPH = Demo(HERE / "astronaut.jpg", False, ("portrait of an astronaut, studio light",), steps=20)
DEMOS: Mapping[str, Demo] = {
    NANO.name: Demo(
        HERE / "portrait.png",
        True,
        (
            "A woman wearing a red t-shirt, smiling, on a beach.",
            "A woman wearing a blue suit, in a library.",
            "A woman wearing a green hoodie and a yellow beanie, laughing, in the snow.",
            "A woman wearing a purple coat, in the city at night.",
        ),
    )
}
"""Variant -> what shows it best; others are shown `PHOTOGRAPH`."""


def choose(arguments: argparse.Namespace) -> Demo:
    """The variant's demo, with what the command line says instead."""
    demo = DEMOS.get(arguments.variant, PHOTOGRAPH)
    if arguments.photo is not None:
        demo = replace(demo, photo=arguments.photo, aligned=arguments.aligned)
    if arguments.prompt:
        demo = replace(demo, prompts=tuple(arguments.prompt))
    return demo if arguments.seed is None else replace(demo, seed=arguments.seed)


def check(demo: Demo) -> None:
    """What can be told before minutes are spent. Raises `DemoError`, and `OutputError`."""
    require_file(OUTPUT)
    try:
        with Image.open(demo.photo) as file:
            file.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "no picture that can be read"
        raise DemoError(f"--photo: expected a picture, such as a JPEG or PNG file, got {demo.photo}: {reason}") from None
    for prompt in demo.prompts:
        if not prompt.strip():
            raise DemoError("--prompt: expected the words of a scene, got an empty text")


def generate(pipe: FaceCLIPPipeline, demo: Demo) -> list[FaceCLIPOutput]:
    """One picture for each prompt; picture i starts from seed + i."""

    def one(i: int) -> FaceCLIPOutput:
        return pipe(
            demo.prompts[i],
            face_image=demo.photo,
            face_aligned=demo.aligned,
            seed=demo.seed + i,
            num_inference_steps=demo.steps,
            retries=20,
        )

    with ThreadPoolExecutor(len(demo.prompts)) as clients:
        return list(clients.map(one, range(len(demo.prompts))))


def contact_sheet(photo: Path, prompts: Sequence[str], pictures: Sequence[Picture]) -> Picture:
    """The reference beside the pictures, each under its prompt; all cells are squares, without distortion."""
    with Image.open(photo) as file:
        reference = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    cells = [
        np.asarray(ImageOps.pad(Image.fromarray(picture), (CELL, CELL), color="white")) for picture in [reference, *pictures]
    ]
    return sheet([cells], ["reference", *prompts], CELL)


def summary(
    variant: str, demo: Demo, results: Sequence[FaceCLIPOutput], size: tuple[int, int], stages: Mapping[str, float], server: str
) -> dict[str, Any]:
    """The JSON document; `size`: of the sheet, width and height. Stages of a picture are those of the first."""
    timings = results[0].details["timings_s"]
    return {
        "image": str(OUTPUT),
        "seed": results[0].seed,
        "size": list(size),
        "wall_s": round(sum(stages.values()), 3),
        "stages_s": {**stages, **{f"generate.{name}": seconds for name, seconds in timings.items()}},
        "server": server,
        "variant": variant,
        "reference": demo.photo.name,
        "pictures": [
            {"prompt": prompt, "seed": result.seed, "size": list(result.images[0].size)}
            for prompt, result in zip(demo.prompts, results, strict=True)
        ],
    }


def show(variant_name: str, demo: Demo) -> dict[str, Any]:
    """Does all of it; progress on stderr."""
    started = time.monotonic()
    stages: dict[str, float] = {}

    def done(stage: str) -> None:
        stages[stage] = round(time.monotonic() - started - sum(stages.values()), 3)
        print(f"{stage}: {stages[stage]:.1f} s", file=sys.stderr)

    check(demo)
    repository = build_repository(VARIANTS[variant_name], PLACEMENT)
    done("build")
    with interruptible(), TritonServer(repository, Ports.free(), log=BUILD / "demo-server.log") as server:
        server.wait_ready()
        done("start")
        with FaceCLIPPipeline.from_pretrained(server.url) as pipe:
            results = generate(pipe, demo)
            version = server_version(server.connection)
        done("generate")
    made = contact_sheet(demo.photo, demo.prompts, [np.asarray(result.images[0]) for result in results])
    save(made, OUTPUT)
    done("stop")
    if demo.photo.parent != HERE:  # what the server remarks on the demo's own pictures is no news to anybody
        for warning in dict.fromkeys(warning for result in results for warning in result.warnings):
            print(f"note: {warning}", file=sys.stderr)
    return summary(variant_name, demo, results, (made.shape[1], made.shape[0]), stages, version)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default=NANO.name)
    parser.add_argument("--photo", type=Path, help="your own photograph (default: one that suits the variant)")
    parser.add_argument("--aligned", action="store_true", help="your photograph is an aligned 448 x 448 face crop already")
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="a scene; may be repeated")
    parser.add_argument("--seed", type=int, help="of the first picture; default: 7")
    arguments = parser.parse_args(argv)
    return exit_code(lambda: _show(arguments))


def _show(arguments: argparse.Namespace) -> int:
    try:
        document = show(arguments.variant, choose(arguments))
    except FaceCLIPError as error:
        raise DemoError(str(error)) from error
    print(json.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
