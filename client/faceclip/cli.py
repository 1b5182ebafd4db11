"""The command `faceclip`: reads arguments, calls the pipeline, prints. Exit codes: 0 done, 1 the server or a file failed, 2 the
request must change, 130 interrupted; of `verify` also 3 nothing was found, 4 what was found is broken.
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

from . import __version__, cli_group, cli_people, cli_recipes
from .address import DEFAULT_ADDRESS, ENVIRONMENT_VARIABLE, split_target
from .cli_people import add_option, record_of
from .errors import FaceCLIPError, InvalidRequestError
from .grpc_transport import GrpcTransport
from .marks.verify import Report
from .parameters import OPTIONS
from .pipeline import FaceCLIPPipeline
from .progress_line import ProgressLine
from .request import from_text
from .result import FORMATS, FaceCLIPOutput, check_outputs, format_of, numbered
from .status import ServerStatus, server_status
from .verify import verify_picture

_EXAMPLES = f"""\
examples:
  faceclip generate --face me.jpg --prompt "portrait of an astronaut, studio light" -o astronaut.png
  faceclip generate --face a.jpg --face b.jpg --prompt "oil painting" --images 4 --seed 7 -o painting.webp
  faceclip edit --image party.jpg --mask face --face me.jpg --prompt "a clown" -o clown.png
  faceclip generate --prompt "a lighthouse" --steps 20 --width 768 --height 768 --json -o out.png
  faceclip generate --person anna.jpg@0,0,0.5,1 --person "ben.jpg@0.5,0,1,1:a man in a suit" --prompt "two friends" -o two.png
  faceclip generate --recipe travel --choice place=harbour --face me.jpg -o harbour.png
  faceclip faces group.jpg
  faceclip identity anna.jpg -o anna.faceid
  faceclip status --server gpu-box:8001
  faceclip verify astronaut.png

The server is --server, else ${ENVIRONMENT_VARIABLE}, else {DEFAULT_ADDRESS}.
exit codes: 0 done, 1 the server or a file failed, 2 the request must change, 130 interrupted;
            of verify also 3: nothing was found in a picture, 4: what was found in one is broken
"""

_GENERATE_NOTES = """\
What is left out, the server decides; `faceclip status` shows its defaults. Several pictures are numbered: out-0.png, out-1.png…
An existing output file is replaced, by a whole new one; a folder, or a picture that is sent, never is.
The files are the server's own, byte for byte, with the marks and metadata it put in.
Ctrl-C cancels; a server that streams its progress then stops working on the request.
"""

_EDIT = """\
Change a picture, which comes back in its own size. --mask face, --mask head or --mask-image say where, and all else stays as it is;
without one, all of it is drawn anew. --strength says how much, --face who it becomes.
"""

_STATUS = "Is the server there, what does it serve, and what does it use where a request says nothing."

_VERIFY = """\
Which marks pictures bear: credentials (C2PA) and the label in their metadata are read here, the invisible mark by the server that has
its key: it gets the pictures for that, and keeps nothing. Nothing else is asked or fetched. That nothing is found means nothing."""

_SENT = {"face": "face_images", "image": "image", "mask_image": "mask_image", "identity": "identity"}
"""Options that name files -> the parameter that each is."""

_ELSEWHERE = {
    "prompt": "--prompt",
    **{name: f"--{flag.replace('_', '-')}" for flag, name in _SENT.items()},
    "people": "--person",
    "people_masks": "--person",
    "output_format": "decided by the ending of -o",
}
"""What `--set` cannot give, and where it is given."""


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
    options |= {"retries": arguments.retries, "prompt_language": arguments.prompt_language}
    if arguments.consent is not None:
        options["consent"] = record_of(arguments.consent)
    for flag in ("face", "identity"):
        if arguments.person and getattr(arguments, flag):
            raise InvalidRequestError(f"--{flag}: expected none beside --person, which has its own files: {cli_group.HELP}")
    for flag, name in _SENT.items():
        if sent := getattr(arguments, flag):
            _check_sent(f"--{flag.replace('_', '-')}", sent if isinstance(sent, list) else [sent], paths)
            options[name] = sent
    if arguments.person:
        for each in arguments.person:
            _check_sent("--person", [*each.files, *([each.mask] if each.mask else [])], paths)
        options["people"] = [each.person() for each in arguments.person]
    with FaceCLIPPipeline.from_pretrained(
        arguments.server, model=arguments.model, timeout_s=arguments.timeout, headers=dict(arguments.header)
    ) as pipe:
        unknown = [
            name
            for name, value in options.items()
            if value is not None and name not in {*pipe.config.inputs, "retries", "prompt_language"}
        ]
        if unknown:
            raise InvalidRequestError(
                f"{unknown[0]}: model '{pipe.config.model}' of this server has no such parameter; leave it out"
            )
        options |= {name: from_text(name, pipe.config.inputs, text) for name, text in arguments.set}
        prompt, options = cli_recipes.filled(arguments, options)
        result = _run(pipe, prompt, options, visible=not (arguments.json or arguments.quiet))
    _print_result(result, result.save(output), arguments)
    return 0


def _check_sent(flag: str, sent: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Raises where a file to be sent is none, or would be written over."""
    kind, what = ("identity file", "identity") if flag == "--identity" else ("image file", "photograph")
    form = f"; write {cli_group.HELP}" if flag == "--person" else ""
    for path in sent:
        if not path.is_file():
            raise InvalidRequestError(f"{flag}: expected an {kind}, got {path}{form}")
        for target in outputs:
            if target.exists() and target.samefile(path):
                raise InvalidRequestError(f"-o {target}: expected another file than the {what} of {flag}; it would be lost")


def status(arguments: argparse.Namespace) -> int:
    """`faceclip status`."""
    addresses, variant = split_target(arguments.server)
    if variant is not None:
        raise InvalidRequestError(f"--server: status is of a server, not of a variant; write host:port, got '{variant}'")
    if len(addresses) > 1:
        raise InvalidRequestError(
            f"--server: status is of one server, got {', '.join(map(str, addresses))}; ask each by itself"
        )
    with closing(GrpcTransport(addresses, dict(arguments.header))) as transport:
        found = server_status(transport)
    print(json.dumps(found.as_json()) if arguments.json else _status_text(found), flush=True)
    return 0 if found.ready else 1


def verify(arguments: argparse.Namespace) -> int:
    """`faceclip verify`."""
    addresses, variant = split_target(arguments.server)
    anchors = "".join(_trusted(path) for path in arguments.trust)
    keys = [key for path in arguments.mark_key for key in _keys(path)]
    asked = None if arguments.offline or keys else GrpcTransport(addresses, dict(arguments.header))
    reports, failed = [], 0
    try:
        for path in arguments.pictures:
            try:
                report = verify_picture(path, asked, model=arguments.model or variant, anchors=anchors, mark_keys=keys)
            except (InvalidRequestError, OSError) as error:
                failed += 1
                print(f"faceclip: {error}", file=sys.stderr)
                reports.append({"picture": str(path), "error": str(error)})
                continue
            reports.append({"picture": str(path), **report.as_json()})
            if not arguments.json:
                print(_report_text(path, report))
    finally:
        if asked is not None:
            asked.close()
    if arguments.json:
        print(json.dumps({"pictures": reports}))
    read = [report for report in reports if "error" not in report]
    if failed:
        return 1
    return 4 if any(report["doubtful"] for report in read) else 0 if all(report["found"] for report in read) else 3


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="faceclip",
        description="Pictures of the person in a photo, made by a FaceCLIP server.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"faceclip-client {__version__}")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="{generate,edit,recipes,faces,identity,status,verify}"
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--server", metavar="URL", help="host:port, grpcs://host:port for TLS, several with commas, or a variant"
    )
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
    _add_generate(commands.add_parser(
        "edit",
        parents=[common],
        help="change a picture",
        description=_EDIT,
        epilog=f"{_GENERATE_NOTES}\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ), edits=True)  # fmt: skip
    cli_people.add_commands(commands, common)
    cli_recipes.add_command(commands)
    about = commands.add_parser("status", parents=[common], help="what a server is and serves", description=_STATUS)
    about.set_defaults(command=status)
    check = commands.add_parser("verify", parents=[common], help="which marks pictures bear", description=_VERIFY)
    check.add_argument("pictures", nargs="+", type=Path, metavar="FILE", help="PNG, JPEG or WebP")
    check.add_argument("--model", metavar="NAME", help="deployment whose mark is meant, on a server that has several")
    check.add_argument("--offline", action="store_true", help="ask no server: then the invisible mark is not read")
    check.add_argument(
        "--trust", action="append", default=[], type=Path, metavar="PEM", help="an authority whose signatures count as known"
    )
    check.add_argument(
        "--mark-key",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="the server's keys of the mark: no server is asked",
    )
    check.set_defaults(command=verify)
    return parser


class _Once(argparse.Action):
    """A file of which there is one."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None) -> None:
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(
                self, f"expected one file, got {getattr(namespace, self.dest)} and {values}; leave out one"
            )
        setattr(namespace, self.dest, values)


def _add_generate(parser: argparse.ArgumentParser, edits: bool = False) -> None:
    """The options of `generate`, and of `edit`, which needs a picture."""
    add = parser.add_argument
    add("--prompt", help="what the picture shows, in English or Chinese; with --recipe more words beside its own")
    cli_recipes.add_arguments(parser)
    add("--face", action="append", default=[], type=Path, metavar="FILE", help="photo of the person; may be repeated")
    add(
        "--identity",
        type=Path,
        action=_Once,
        metavar="FILE",
        help="the person, sealed by faceclip identity, in the place of --face",
    )
    add(
        "--person",
        action="append",
        default=[],
        type=cli_group.placed,
        metavar=cli_group.FORM,
        help="one of several people: photos or an identity, the place as fractions of the picture or a mask, and what they look like",
    )
    add("--image", required=edits, type=Path, action=_Once, metavar="FILE", help="picture to change; the result has its size")
    add(
        "--mask-image",
        type=Path,
        action=_Once,
        metavar="FILE",
        help="where it is drawn anew: white there, black elsewhere, of its size",
    )
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
            add_option(parser, option)
    add("--model", metavar="NAME", help="model on a server that has several")
    add("--timeout", type=float, default=600.0, metavar="S", help="seconds to wait for the pictures (default 600)")
    add("--retries", type=int, default=0, metavar="N", help="ask a busy server again, up to N times (default 0)")
    add("--quiet", action="store_true", help="no progress")
    parser.set_defaults(command=generate)


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
    if english := result.details.get("prompt_language", {}).get("prompt"):
        print(f"faceclip: prompt in English: {english}", file=sys.stderr)
    for path, seed in zip(paths, result.seeds, strict=True):
        print(f"{path}  seed {seed}")


def _trusted(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"--trust: expected a file of certificates in PEM, got {path} ({error})") from None


def _keys(path: Path) -> list[bytes]:
    try:
        return [bytes.fromhex(line) for line in path.read_text().split()]
    except ValueError:
        raise InvalidRequestError(f"--mark-key: expected lines of hexadecimal digits, got something else in {path}") from None


def _report_text(path: Path, report: Report) -> str:
    credentials, label, mark = report.credentials, report.label, report.mark
    parts = (
        ("credentials", credentials.state, credentials.why, credentials.signer, credentials.system, credentials.when),
        ("label", label.state, label.why, label.ai_system, *(f"{name} {value}" for name, value in label.aigc.items() if value)),
        ("mark", mark.state, mark.why, mark.mark_id, f"confidence {mark.confidence}" if mark.mark_id else ""),
    )
    lines = [f"{path}: {report.conclusion}"]
    for name, state, why, *more in parts:
        lines.append(f"  {name:<12} {state:<10} {why}")
        told = ", ".join(each for each in more if each)
        lines += [f"{'':<26}{told}"] if told and state not in ("none", "not_read") else []
    lines += [f"  note         {warning}" for warning in report.warnings]
    return "\n".join("".join(each if each.isprintable() else "\ufffd" for each in line) for line in lines)


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
        if marks := found.marks.get(served.model):
            lines.append(_marks_text(served.model, marks))
        if checks := found.checks.get(served.model):
            on, off = (", ".join(checks.get(which, [])) for which in ("on", "off"))
            lines.append(f"{served.model} checks requests: {on or 'NOT AT ALL'}; off: {off or 'nothing'}")
        if rules := found.rules.get(served.model):
            lines.append(_rules_text(served.model, rules))
        lines.append(f"{served.model} takes, and uses unless told otherwise:")
        lines.extend(
            f"  {name:<24} {_range(served.limits.get(name, {})):<28} {served.defaults.get(name, '')}".rstrip()
            for name in served.inputs
        )
    return "\n".join(lines)


def _marks_text(model: str, marks: Mapping[str, Any]) -> str:
    """Which marks pictures get, in words."""
    credentials = marks.get("credentials") or {}
    by = f" by '{credentials.get('organisation')}'" if credentials else ""
    self_made = ", who made that certificate itself" if credentials.get("self_made") else ""
    off = ", ".join(marks.get("off", [])) or "nothing"
    return f"{model} marks its pictures: {', '.join(marks.get('on', [])) or 'NOT AT ALL'}{by}{self_made}; off: {off}"


def _rules_text(model: str, rules: Mapping[str, Any]) -> str:
    """Consent, log and licence, in words."""
    consent, licence = rules.get("consent") or {}, rules.get("licence") or {}
    use = "commercial use too" if licence.get("commercial") else "NON-COMMERCIAL USE ALONE"
    names = "; ".join(f"{what}: {name}" for what, name in (licence.get("names") or {}).items())
    return f"{model}: records of consent: {consent.get('mode')}; audit log: {rules.get('audit')}; licence for {use} ({names})"


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
