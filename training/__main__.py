"""`python -m training <stage> --work <folder>`: trains one stage, or all of them, from where they stopped.

python -m training all --work /data/nano                  the whole recipe
python -m training unet --work /data/nano --seconds 600   ten more minutes of the denoiser
python -m training weights --work /data/nano              the committed files from the checkpoints
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from . import device
from .recipe import STAGES, Recipe, Work, small, train, with_steps
from .weights import write_weights


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("stage", choices=[*STAGES, "all", "weights"])
    parser.add_argument("--work", type=Path, required=True, help="folder of data, checkpoints and loss curves")
    parser.add_argument("--photographs", type=Path, help="a folder of real pictures and captions instead of the rendered world")
    parser.add_argument("--seconds", type=float, help="stop after so many seconds, with a checkpoint")
    parser.add_argument("--share", type=float, default=1.0, help="share of the recipe's steps, for trials")
    parser.add_argument("--steps", type=int, help="steps of this stage, instead of the recipe's")
    parser.add_argument("--device", choices=device.PRESENT, default=device.PRESENT[-1], help="(default here: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="compile the denoiser: minutes of waiting, then faster steps")
    parser.add_argument("--output", type=Path, default=Path("weights/nano"), help="for `weights`")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_default_device(arguments.device)
    recipe = small(Recipe(), arguments.share) if arguments.share != 1.0 else Recipe()
    recipe = replace(recipe, compiled=arguments.compile)
    if arguments.steps is not None and arguments.stage not in STAGES:
        parser.error(f"--steps: expected one stage with it, got '{arguments.stage}'; use --share for all of them")
    if arguments.steps is not None:
        recipe = with_steps(recipe, arguments.stage, arguments.steps)
    work = Work(arguments.work, recipe, arguments.photographs)
    if arguments.stage == "weights":
        for file, size in write_weights(work, arguments.output).items():
            print(f"{size / 1e6:6.2f} MB  {file}")
        return 0
    stages = [stage for stage in STAGES if arguments.stage in (stage, "all")]
    if arguments.photographs is not None and "attributes" in stages:
        if stages == ["attributes"]:
            parser.error(
                "attributes: nobody knows the attributes of photographs; this judge is trained on the rendered world only"
            )
        stages.remove("attributes")
    for stage in stages:
        train(work, stage, arguments.seconds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
