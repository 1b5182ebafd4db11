"""The command `faceclip`: reads arguments, calls the pipeline, prints. Exit codes: 0 done, 1 the server or a file failed, 2 the
request must change, 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

from . import __version__
from .address import DEFAULT_ADDRESS, ENVIRONMENT_VARIABLE, split_target
from .errors import FaceCLIPError, InvalidRequestError
from .grpc_transport import GrpcTransport
from .parameters import OPTIONS, Option
from .pipeline import FaceCLIPPipeline
from .progress_line import ProgressLine
from .request import from_text
from .result import FORMATS, FaceCLIPOutput, check_outputs, format_of, numbered
from .status import ServerStatus, server_status

_EXAMPLES = f"""\
examples:
  faceclip generate --face me.jpg --prompt "portrait of an astronaut, studio light" -o astronaut.png
  faceclip generate --face a.jpg --face b.jpg --prompt "oil painting" --images 4 --seed 7 -o painting.webp
  faceclip generate --prompt "a lighthouse" --steps 20 --width 768 --height 768 --json -o out.png
  faceclip status --server gpu-box:8001

The server is --server, else ${ENVIRONMENT_VARIABLE}, else {DEFAULT_ADDRESS}.
exit codes: 0 done, 1 the server or a file failed, 2 the request must change, 130 interrupted
"""

_GENERATE_NOTES = """\
What is left out, the server decides; `faceclip status` shows its defaults. Several pictures are numbered: out-0.png, out-1.png…
An existing output file is replaced, by a whole new one; a folder, or a photograph of --face, never is.
The files are the server's own, byte for byte, with the marks and metadata it put in.
Ctrl-C cancels; a server that streams its progress then stops working on the request.
"""

_STATUS = "Is the server there, what does it serve, and what does it use where a request says nothing."

_ELSEWHERE = {"prompt": "--prompt", "face_images": "--face", "output_format": "decided by the ending of -o"}
"""What `--set` cannot give, and where it is given."""

_METAVARS = {int: "N", float: "X", str: "TEXT"}


def console() -> NoReturn:
    """Entry point of the installed command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 gets what it cannot show as an escape
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. Wrong arguments end in argparse's `SystemExit(2)`."""
    arguments = build_parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        code = command(arguments)
        sys.stdout.flush()  # here, where a reader that has gone is known what to do about
        return code
    except KeyboardInterrupt:
        return _fail(arguments, "cancelled", "interrupted", 130)
    except InvalidRequestError as error:
        return _fail(arguments, str(error), type(error).__name__, 2)
    except BrokenPipeError:  # whoever read the output has gone, e.g. `| head`: nobody to tell, and Python must not try at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (FaceCLIPError, OSError) as error:
        return _fail(arguments, str(error), type(error).__name__, 1)


def generate(arguments: argparse.Namespace) -> int:
    """`faceclip generate`."""
    output: Path = arguments.output
    paths = numbered(output, min(max(arguments.num_images_per_prompt or 1, 1), 1000))
    check_outputs(paths)  # before minutes are spent
    for name, _ in arguments.set:
        if name in _ELSEWHERE:
            raise InvalidRequestError(
                f"--set {name}: expected one of the server's further parameters; this one is {_ELSEWHERE[name]}"
            )
    options: dict[str, Any] = {option.name: getattr(arguments, option.name) for option in OPTIONS if option.flags}
    options["output_format"] = format_of(output)
    options["retries"] = arguments.retries
    for path in arguments.face:
        if not path.is_file():
            raise InvalidRequestError(f"--face: expected an image file, got {path}")
        for target in paths:
            if target.exists() and target.samefile(path):
                raise InvalidRequestError(f"-o {target}: expected another file than the photograph of --face; it would be lost")
    if arguments.face:
        options["face_images"] = arguments.face
    with FaceCLIPPipeline.from_pretrained(
        arguments.server, model=arguments.model, timeout_s=arguments.timeout, headers=dict(arguments.header)
    ) as pipe:
        unknown = [
            name for name, value in options.items() if value is not None and name not in {*pipe.config.inputs, "retries"}
        ]
        if unknown:
            raise InvalidRequestError(
                f"{unknown[0]}: model '{pipe.config.model}' of this server has no such parameter; leave it out"
            )
        options |= {name: from_text(name, pipe.config.inputs, text) for name, text in arguments.set}
        result = _run(pipe, arguments.prompt, options, visible=not (arguments.json or arguments.quiet))
    _print_result(result, result.save(output), arguments)
    return 0


def status(arguments: argparse.Namespace) -> int:
    """`faceclip status`."""
    address, variant = split_target(arguments.server)
    if variant is not None:
        raise InvalidRequestError(f"--server: status is of a server, not of a variant; write host:port, got '{variant}'")
    with closing(GrpcTransport(address, dict(arguments.header))) as transport:
        found = server_status(transport)
    print(json.dumps(found.as_json()) if arguments.json else _status_text(found), flush=True)
    return 0 if found.ready else 1


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="faceclip",
        description="Pictures of the person in a photo, made by a FaceCLIP server.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"faceclip-client {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="{generate,status}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--server", metavar="URL", help="host:port, grpcs://host:port for TLS, or the name of a variant")
    common.add_argument(
        "--header", action="append", default=[], type=_header, metavar="'NAME: VALUE'", help="sent with every call"
    )
    common.add_argument("--json", action="store_true", help="print one line of JSON, errors included")
    _add_generate(commands.add_parser(
        "generate",
        parents=[common],
        help="make pictures",
        description="Make pictures from a prompt and photos of one person.",
        epilog=f"{_GENERATE_NOTES}\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ))  # fmt: skip
    about = commands.add_parser("status", parents=[common], help="what a server is and serves", description=_STATUS)
    about.set_defaults(command=status)
    return parser


def _add_generate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--prompt", required=True, help="what the picture shows, in English")
    add("--face", action="append", default=[], type=Path, metavar="FILE", help="photo of the person; may be repeated")
    add("-o", "--output", required=True, type=_output, metavar="FILE", help=f"{', '.join(FORMATS)}; it decides the format")
    add(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=VALUE",
        help="a parameter that only the server knows; faceclip status lists them",
    )
    for option in OPTIONS:
        if option.flags:
            _add_option(parser, option)
    add("--model", metavar="NAME", help="model on a server that has several")
    add("--timeout", type=float, default=600.0, metavar="S", help="seconds to wait for the pictures (default 600)")
    add("--retries", type=int, default=0, metavar="N", help="ask a busy server again, up to N times (default 0)")
    add("--quiet", action="store_true", help="no progress")
    parser.set_defaults(command=generate)


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    text = option.doc.replace("%", "%%")
    if option.type is bool:
        parser.add_argument(*option.flags, dest=option.name, action=argparse.BooleanOptionalAction, help=text)
    else:
        parser.add_argument(*option.flags, dest=option.name, type=option.type, metavar=_METAVARS[option.type], help=text)


def _run(pipe: FaceCLIPPipeline, prompt: str, options: dict[str, Any], visible: bool) -> FaceCLIPOutput:
    """Streams where the server can, because only a streamed request can be cancelled while it runs."""
    with ProgressLine(sys.stderr, visible) as line:
        if not pipe.can_stream():
            return pipe(prompt, output_type="bytes", **options)

        def show(_pipe: object, _step: int, _timestep: object, now: dict[str, Any]) -> None:
            line.update(now["progress"])

        return pipe(prompt, output_type="bytes", callback_on_step_end=show, **options)


def _print_result(result: FaceCLIPOutput, paths: list[Path], arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps({
            "files": [str(path) for path in paths],
            "seeds": result.seeds,
            "warnings": result.warnings,
            "sha256": [made.sha256 for made in result.provenance],
            "details": result.details,
        }))  # fmt: skip
        return
    for warning in result.warnings:
        print(f"faceclip: warning: {warning}", file=sys.stderr)
    for path, seed in zip(paths, result.seeds, strict=True):
        print(f"{path}  seed {seed}")


def _status_text(found: ServerStatus) -> str:
    lines = [f"{found.address}: {found.name} {found.version}, {'ready' if found.ready else 'NOT READY'}"]
    variants = {
        served.model: f"variant {served.variant}, placement {served.placement}{', EMULATED' if served.emulated else ''}"
        for served in found.offered
    }
    for model in found.models:
        state = "ready" if model.ready else f"not ready {model.reason}".rstrip()
        lines.append(f"  {model.name:<24} {state:<10} {variants.get(model.name, '')}".rstrip())
    if not found.offered:
        lines.append("no FaceCLIP model is ready there")
    for served in found.offered:
        for component, what in served.emulated.items():
            lines.append(f"{served.model}: {component} is emulated, {what}: its times and memory are not the card's")
        lines.append(f"{served.model} takes, and uses unless told otherwise:")
        lines.extend(
            f"  {name:<24} {_range(served.limits.get(name, {})):<28} {served.defaults.get(name, '')}".rstrip()
            for name in served.inputs
        )
    return "\n".join(lines)


def _range(limits: Mapping[str, Any]) -> str:
    """What a parameter may be, in words."""
    if "choices" in limits:
        return ", ".join(limits["choices"])
    if "entries" in limits:
        return f"JSON of {', '.join(limits['entries'])}"
    if "min" in limits:
        return f"{limits['min']} to {limits['max']}" + (f", by {limits['multiple']}" if "multiple" in limits else "")
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in limits.items())


def _fail(arguments: argparse.Namespace, message: str, kind: str, code: int) -> int:
    print(f"faceclip: {message}", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"error": {"type": kind, "message": message}}))
    return code


def _output(text: str) -> Path:
    try:
        format_of(text)
    except InvalidRequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got '{text}'")
    return name, value


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"expected 'name: value', got '{text}'")
    return name.strip(), value.strip()
