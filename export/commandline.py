"""What command lines of this project share: a table of commands, the options that many of them take, and how errors are told.

A table maps a command to its module, which is imported for the command that runs and for no other: torch takes seconds. The module
has `add_arguments(parser)` and `run(args)`; its docstring is the command's `--help`.
"""

from __future__ import annotations

import argparse
import atexit
import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from faceclip_serving import __version__
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import PLACEMENT_NAMES, PLAN_RUNTIMES
from faceclip_serving.contract.variants.table import VARIANTS

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C has ended, as shells count: 128 and the signal's number."""


class Command(NamedTuple):
    module: str
    help: str


def run_command(
    program: str,
    purpose: str,
    commands: Mapping[str, Command],
    argv: Sequence[str] | None = None,
    *,
    epilog: str = "",
    aliases: Mapping[str, str] | None = None,
) -> int:
    """Runs the command that `argv` begins with; returns its exit code.

    Errors are told as `exit_code` says. `aliases`: old spelling -> command.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    name = (aliases or {}).get(argv[0], argv[0]) if argv else ""
    if name not in commands:
        _overview(program, purpose, commands, epilog).parse_args(argv)  # ends the program: with its help, or its error
    module = importlib.import_module(commands[name].module)
    parser = argparse.ArgumentParser(
        f"{program} {name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.add_arguments(parser)
    arguments = parser.parse_args(argv[1:])
    return exit_code(lambda: module.run(arguments))


def exit_code(command: Callable[[], int], interrupted: str = "stopped") -> int:
    """Runs a command and returns its exit code.

    What a user can mend (`UserError`, and the system's errors about files) is one line on stderr, and code 1; Ctrl-C is the line
    `interrupted`, and 130, and the next one ends the process at once. A reader of the output who has left, e.g. `| head`, is told
    nothing.
    """
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:  # nobody to tell, and Python must not try at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        _end_at_the_next()
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
    return code


def _end_at_the_next() -> None:
    """Makes another Ctrl-C end the process at once with the same code: nobody is left who would catch it, until Python has ended.

    Python's very last act takes handlers away, and the next signal would end it by its default, with another code; what is ignored
    stays so.
    """
    while True:
        try:
            signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
            return
        except KeyboardInterrupt:  # it was on its way
            continue


def add_version(parser: argparse.ArgumentParser) -> None:
    """`--version`, of the whole project."""
    parser.add_argument("--version", action="version", version=f"faceclip-triton {__version__}")


def _overview(program: str, purpose: str, commands: Mapping[str, Command], epilog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        program, description=purpose, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_version(parser)
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="command")
    for name, command in commands.items():
        subparsers.add_parser(name, help=command.help)
    return parser


def add_variant(parser: argparse.ArgumentParser, default: str = "tiny-sdxl") -> None:
    """`--variant`."""
    parser.add_argument("--variant", choices=sorted(VARIANTS), default=default, help="what is served (default: %(default)s)")


def add_placement(
    parser: argparse._ActionsContainer, default: str | None = "cpu", text: str = "where its components run"
) -> None:
    """`--placement`, also spelt `--profile` as it once was. Whether the variant has it, `placement_of` says."""
    shown = text if default is None else f"{text} (default: %(default)s)"
    parser.add_argument("--placement", "--profile", choices=PLACEMENT_NAMES, default=default, help=shown)


def add_runtime(parser: argparse._ActionsContainer) -> None:
    """`--runtime`, which takes the place of the placement's for its plans."""
    parser.add_argument("--runtime", choices=PLAN_RUNTIMES, help="of the plans (default: the placement's)")


def add_checkpoint(parser: argparse._ActionsContainer, text: str) -> None:
    """`--checkpoint`, a folder of the official layout."""
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help=text)


def add_components(parser: argparse.ArgumentParser, text: str = "root of <precision>/<component>/") -> None:
    """`--components`, where exported components lie."""
    parser.add_argument("--components", type=Path, metavar="DIR", help=f"{text} (default: build/onnx/<variant>)")
