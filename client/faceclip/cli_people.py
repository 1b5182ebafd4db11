"""The commands of `faceclip` that look at photographs and draw nothing."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .errors import InvalidRequestError
from .parameters import OPTIONS, Option
from .people import Face
from .pipeline import FaceCLIPPipeline
from .result import check_outputs

_FACES = """\
Which faces a photograph shows, the largest first. The number is what --face-index of generate takes, the place what --face-boxes
takes. Nothing is drawn, and the server keeps nothing."""


_IDENTITY = """\
Seals the features of somebody's face into a file, for --identity of generate and edit: in the place of photographs, and faster. Only
the server that has sealed it, or one with its key, can open it; it keeps nothing. Whoever has the file can draw that person there, so
keep it as you would keep a photograph."""

_OF_PHOTOGRAPHS = (
    "face_aligned", "face_weighting", "face_index", "face_boxes", "consent", "remember", "priority", "tenant"
)  # fmt: skip
_METAVARS = {int: "N", float: "X", str: "TEXT"}


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the parsers. `common`: the options of every command that asks a server."""
    look = commands.add_parser("faces", parents=[common], help="which faces photographs show", description=_FACES)
    look.add_argument("photos", nargs="+", type=Path, metavar="FILE", help="photograph")
    _add_call(look)
    look.set_defaults(command=faces)
    seal = commands.add_parser("identity", parents=[common], help="seal a person for later", description=_IDENTITY)
    seal.add_argument("photos", nargs="+", type=Path, metavar="FILE", help="photographs of one person")
    seal.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="where to write it, e.g. anna.faceid")
    seal.add_argument("--expires", metavar="TIME", help="from when on it is refused, such as 2027-01-31T12:00:00Z")
    for option in OPTIONS:
        if option.name in _OF_PHOTOGRAPHS:
            add_option(seal, option)
    _add_call(seal)
    seal.set_defaults(command=identity)


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


def identity(arguments: argparse.Namespace) -> int:
    """`faceclip identity`."""
    output: Path = arguments.output
    check_outputs([output])
    for path in arguments.photos:
        if output.exists() and checked(path).samefile(output):
            raise InvalidRequestError(f"-o {output}: expected another file than the photograph; it would be lost")
    options = {name: getattr(arguments, name) for name in _OF_PHOTOGRAPHS}
    if options["consent"] is not None:
        options["consent"] = record_of(options["consent"])
    with _connected(arguments) as pipe:
        made = pipe.identity([checked(path) for path in arguments.photos], expires=arguments.expires, **options)
    made.save(output)
    if arguments.json:
        print(json.dumps({"file": str(output), "id": made.id, "expires": made.expires, "details": made.details}))
        return 0
    for warning in made.warnings:
        print(f"faceclip: warning: {warning}", file=sys.stderr)
    print(f"{output}  identity {made.id}{f', expires {made.expires}' if made.expires else ''}")
    return 0


def record_of(consent: str) -> str:
    """A record of consent, given as it is or by the name of its file."""
    if consent.lstrip().startswith("{"):
        return consent
    try:
        return Path(consent).read_text()
    except (OSError, ValueError) as error:
        raise InvalidRequestError(
            f"--consent: expected a record of consent, or the name of its file, got {consent} ({error})"
        ) from None


def add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    """Adds a parameter of the server to a command."""
    text = option.doc.replace("%", "%%")
    if option.type is bool:
        parser.add_argument(*option.flags, dest=option.name, action=argparse.BooleanOptionalAction, help=text)
    else:
        several: dict[str, Any] = {} if option.values == 1 else {"nargs": option.values or "+"}
        parser.add_argument(
            *option.flags, dest=option.name, type=option.type, metavar=_METAVARS[option.type], help=text, **several
        )


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
        doubt = f"  doubtful: {', '.join(face.doubts)}" if face.doubts else ""
        doubt = doubt if face.usable else "  too small"
        lines.append(
            f"  {face.index}  at {place}  eyes {face.eye_distance:.0f} pixels apart  frontality {face.frontality:.2f}"
            f"  sharpness {face.sharpness:.2f}{doubt}"
        )
    return "\n".join(lines)
