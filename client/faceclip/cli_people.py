"""The commands of `faceclip` that look at photographs and draw nothing."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .errors import InvalidRequestError
from .people import Face
from .pipeline import FaceCLIPPipeline

_FACES = """\
Which faces a photograph shows, the largest first. The number is what --face-index of generate takes, the place what --face-boxes
takes. Nothing is drawn, and the server keeps nothing."""


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the parsers. `common`: the options of every command that asks a server."""
    look = commands.add_parser("faces", parents=[common], help="which faces photographs show", description=_FACES)
    look.add_argument("photos", nargs="+", type=Path, metavar="FILE", help="photograph")
    _add_call(look)
    look.set_defaults(command=faces)


def faces(arguments: argparse.Namespace) -> int:
    """`faceclip faces`."""
    found: dict[str, list[Face]] = {}
    with _connected(arguments) as pipe:
        for path in arguments.photos:
            found[str(path)] = pipe.faces(checked(path))
            if not arguments.json:
                print(_text(path, found[str(path)]))
    if arguments.json:
        print(json.dumps({"photos": {path: [asdict(face) for face in each] for path, each in found.items()}}))
    return 0


def checked(path: Path) -> Path:
    """A photograph that is there."""
    if not path.is_file():
        raise InvalidRequestError(f"expected the file of a photograph, got {path}")
    return path


def _add_call(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME", help="model on a server that has several")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds to wait (default 60)")


def _connected(arguments: argparse.Namespace) -> FaceCLIPPipeline:
    return FaceCLIPPipeline.from_pretrained(
        arguments.server, model=arguments.model, timeout_s=arguments.timeout, headers=dict(arguments.header)
    )


def _text(path: Path, found: list[Face]) -> str:
    lines = [f"{path}: {len(found)} face{'' if len(found) == 1 else 's'}"]
    for face in found:
        place = " ".join(f"{each:.3f}" for each in face.fractions)
        doubt = "" if face.usable else "  too small"
        lines.append(
            f"  {face.index}  at {place}  eyes {face.eye_distance:.0f} pixels apart  frontality {face.frontality:.2f}"
            f"  sharpness {face.sharpness:.2f}{doubt}"
        )
    return "\n".join(lines)
