"""`python -m training <stage> --work <folder>`: trains one stage, or all of them, from where they stopped."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from export.commandline import add_version
from export.outputs import require_directory
from faceclip_serving.contract.numbers import finite, seconds

from .errors import TrainingError, exit_code
from .recipe import PEERS, RENDERED_ONLY, STAGES, Recipe, small, with_steps

_EXAMPLES = """examples:
  python -m training all --work /data/nano                    the whole recipe: what is served, and its judges
  python -m training peers --work /data/nano                  then what it is compared with
  python -m training unet --work /data/nano --seconds 600     ten more minutes of the denoiser
  python -m training weights --work /data/nano                the committed files from the checkpoints
  python -m training adopt --work /data/more                  checkpoints from the committed files; then, for instance, delete
                                                              natural.pt and train that stage alone
  python -m training all --work /data/us --photographs /data/photographs

also:
  python -m training.resumability --work /tmp/resume          does a training that was stopped end with the same weights?
  python -m training.contact_sheet --output sheet.png         what the weights can do, in one picture"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one stage, all of them, or writes the weights; returns the exit code."""
    stages = "\n".join(f"  {name:12}{learns}" for name, learns in STAGES.items())
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description=f"Trains one stage, or all of them, from where they stopped.\n\nstages, in order, and what they learn:\n{stages}",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    add_version(parser)
    arguments = parser.parse_args(argv)
    if arguments.steps is not None and arguments.stage not in STAGES:
        parser.error(f"--steps: expected one stage with it, got '{arguments.stage}'; use --share for all of them")
    if arguments.photographs is not None and arguments.stage in RENDERED_ONLY:
        parser.error(f"{arguments.stage}: learns what nobody knows of photographs; it is trained on the rendered world only")
    return exit_code(lambda: run(arguments))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "stage",
        choices=[*STAGES, "all", "peers", "weights", "adopt"],
        metavar="stage",
        help="one of those above; `all`, but for the peers; `peers`; `weights`, or `adopt`",
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of data, checkpoints and loss curves")
    parser.add_argument("--photographs", type=Path, help="a folder of real pictures and captions instead of the rendered world")
    parser.add_argument("--seconds", type=seconds, help="stop after so many seconds, with a checkpoint")
    parser.add_argument("--share", type=finite(), default=1.0, help="share of the recipe's steps, for trials")
    parser.add_argument("--steps", type=int, help="steps of this stage, instead of the recipe's")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="(default: cuda where there is a GPU)")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="compile the denoiser: minutes of waiting, then faster steps")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("weights/nano"),
        help="where `weights` writes, and `adopt` reads (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    import torch  # here, since it takes seconds

    from .run.adopt import adopt
    from .run.stages import train
    from .run.weights import write_weights
    from .run.work import Work, claim

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device: expected a device that this machine has, got 'cuda'; give 'cpu'")
    torch.set_default_device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.set_num_threads(arguments.threads)
    recipe = replace(small(Recipe(), arguments.share) if arguments.share != 1.0 else Recipe(), compiled=arguments.compile)
    if arguments.steps is not None:
        recipe = with_steps(recipe, arguments.stage, arguments.steps)
    if arguments.stage == "weights":
        require_directory(arguments.output)
    else:
        claim(arguments.work)
    work = Work(arguments.work, recipe, arguments.photographs)
    if arguments.stage == "weights":
        for file, size in write_weights(work, arguments.output).items():
            print(f"{size / 1e6:6.2f} MB  {file}")
        return 0
    if arguments.stage == "adopt":
        print(f"adopted: {', '.join(adopt(work, arguments.output))}")
        return 0
    unknown = () if arguments.photographs is None else RENDERED_ONLY
    several = {"all": [name for name in STAGES if name not in (*PEERS, *unknown)], "peers": PEERS}
    started = time.monotonic()
    for stage in several.get(arguments.stage, [arguments.stage]):
        left = None if arguments.seconds is None else arguments.seconds - (time.monotonic() - started)
        if left is not None and left <= 0:
            break
        train(work, stage, left)
    return 0


if __name__ == "__main__":
    sys.exit(main())
