"""What is drawn to measure or to calibrate a network: prompts as people write them, a real face, a guided sampling run. Needs no torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..commandline import add_checkpoint
from ..paths import PHOTOGRAPH

PROMPTS = (
    "portrait of an astronaut, studio light",
    "a person reading in a library, warm light",
    "a person in a red coat walking in the snow, full body",
    "oil painting of a person in a garden at sunset",
)
MORE = (
    "portrait of a person in a park, morning",
    "a person wearing a black jacket in the city at night",
    "a smiling person in a kitchen, warm light",
    "a person with a yellow cap on a mountain",
    "watercolour of a person at a window",
    "a person in a white shirt, plain background",
    "an angry person in a forest, dim light",
    "a person in a purple dress in a desert, noon",
)
"""What calibrates besides `PROMPTS`; nothing is judged by these."""
UNSEEN = (
    "a person wearing a green hat, on a beach",
    "pencil sketch of a person in a kitchen",
    "a person laughing on a stage at night, red light",
    "close portrait of a person in a blue suit, in an office",
)
"""Prompts that calibrate nothing: what was calibrated on others is judged by these as well."""


@dataclass(frozen=True)
class Sitting:
    prompts: Sequence[str] = PROMPTS
    photograph: Path = PHOTOGRAPH
    steps: int = 8
    size: tuple[int, int] | None = None
    """Height and width, pixels; None: the variant's default."""
    checkpoint: Path | None = None
    """Folder with the tokenizers of a variant that does not bring its own."""


def add_sitting(parser: argparse.ArgumentParser) -> None:
    """The arguments that commands over calibration pictures share."""
    parser.add_argument("--prompt", action="append", help="draw this; may be repeated (default: some of our own)")
    parser.add_argument(
        "--steps", type=int, default=Sitting.steps, help="denoising steps of each picture (default: %(default)s)"
    )
    add_checkpoint(parser, "folder of the checkpoint: its tokenizers are read")


def sitting_from(args: argparse.Namespace, usual: Sequence[str] = PROMPTS) -> Sitting:
    """`usual`: prompts, where none are given."""
    return Sitting(prompts=tuple(args.prompt or usual), steps=args.steps, checkpoint=args.checkpoint)
