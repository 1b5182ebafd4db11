"""Does training that was stopped and resumed end with the weights of training that was not? Tried on real stages, from nothing.

python -m training.resumability --work /data/resume                 200 steps of the denoiser, stopped after 100
python -m training.resumability --work /data/resume --stage vae     the same of another stage

Renders a few people, trains the stages that the tried one needs for a few steps each, then trains it twice: in one go, and in two
parts that share nothing but the folder. The last line on stdout is JSON; the exit code says whether all weights are equal.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .errors import TrainingError, exit_code
from .learning.loop import run
from .recipe import STAGES, Recipe, with_steps
from .run.stages import make_stage, train
from .run.work import Work, claim

_CONDITIONED = ("face", "vae", "align")
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "decoder": ("vae",),
    "align": ("face",),
    "natural": _CONDITIONED,
    "unet": (*_CONDITIONED, "natural"),
    **dict.fromkeys(("base", "text_only"), _CONDITIONED),
    "adapter": (*_CONDITIONED, "text_only"),
}
"""Stage -> those that it is built on, in order."""
_STEPS_BEFORE: Mapping[str, int] = {"face": 20, "vae": 20, "decoder": 20, "align": 10, "natural": 5, "text_only": 20}
"""Of stages that the tried one is built on."""


def check(folder: Path, stage: str, steps: int, recipe: Recipe) -> dict[str, Any]:
    """Trains `stage` for `steps`, once whole and once stopped in the middle; compares every tensor. `recipe`: batches, people,
    and the steps of the stages before it."""
    recipe = with_steps(recipe, stage, steps)
    for needed in _NEEDED.get(stage, ()):
        train(Work(folder, recipe), needed)
    started = time.monotonic()
    whole = run(make_stage(Work(folder, recipe), stage), folder / "whole")
    seconds = time.monotonic() - started
    run(make_stage(Work(folder, recipe), stage), folder / "parts", stop_at=steps // 2)
    stopped_at = torch.load(folder / "parts" / f"{stage}.pt", weights_only=True, map_location="cpu")["step"]
    parts = run(make_stage(Work(folder, recipe), stage), folder / "parts")
    resumed = parts.state_dict()
    differing = [name for name, value in whole.state_dict().items() if not torch.equal(value, resumed[name])]
    return {
        "stage": stage,
        "steps": steps,
        "stopped_at": stopped_at,
        "tensors": len(resumed),
        "differing": differing,
        "equal": not differing,
        "seconds_of_the_whole_run": round(seconds, 1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.resumability", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="an empty folder")
    parser.add_argument("--stage", choices=list(STAGES), default="unet")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--people", type=int, default=64, help="rendered identities (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(argv)
    return exit_code(lambda: _try(arguments))


def _try(arguments: argparse.Namespace) -> int:
    if (arguments.work / "whole").exists() or (arguments.work / "parts").exists():
        raise TrainingError(f"--work: {arguments.work} holds an earlier trial; give an empty folder")
    claim(arguments.work)
    few = Recipe(identities=arguments.people, frontal_identities=arguments.people)
    for stage, steps in _STEPS_BEFORE.items():
        few = with_steps(few, stage, steps)
    if arguments.people < few.align_batch:
        raise TrainingError(f"--people: expected at least {few.align_batch}, a batch of people, got {arguments.people}")
    torch.set_num_threads(arguments.threads)
    document = check(arguments.work, arguments.stage, arguments.steps, few)
    print(json.dumps(document))
    return 0 if document["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
