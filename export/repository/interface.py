"""Writes what follows from the declarations in faceclip_serving/contract: the committed config.pbtxt files, the client's keywords and
flags, the gateway's fields, the table of parameters in the docs, and the client's copy of what reads marks. A test says that writing
them again changes nothing.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path

from faceclip_serving.contract.allowed import Between, JsonObject, OneOf, Text
from faceclip_serving.contract.parameters import FILES, PARAMETERS, PREVIEW, Default, Parameter
from faceclip_serving.contract.tensors import DType
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..paths import MODEL_REPOSITORY, ROOT

CLIENT = ROOT / "client" / "faceclip" / "parameters.py"
GATEWAY = ROOT / "gateway" / "api" / "parameters.py"
DOCUMENT = ROOT / "docs" / "parameters.md"
MARKING = ROOT / "faceclip_serving" / "marking"
READERS = ("codec.py", "metadata.py", "verify.py", "watermark.py")
"""Modules that read marks, of which the client has a copy: it is installed without the server's code."""
_COPIED = "# Copied by `python -m export interface`: change faceclip_serving/marking/{name}, not this file.\n"

_TYPES = {DType.BYTES: "str", DType.INT32: "int", DType.INT64: "int", DType.FP32: "float", DType.BOOL: "bool"}
_SHOWN = ("sdxl", "flux", "nano")
"""Variants whose defaults and ranges the docs show."""
_NOT_THE_CALLERS = ("prompt", "people", *(each.name for each in FILES), "image_encoding")
"""What the client gives in a way of its own: an argument, people, photographs of many kinds, and how its transport carries pictures."""

_NOT_OF_HTTP = ("num_images_per_prompt", "mask", "output_format", "tenant", PREVIEW.name)
"""What the gateway's requests say in OpenAI's words: n, a mask that may be a file, a format in lower case, user, partial_images."""

_OTHER_FLAGS = {"face_images": "--face", "people": "--person", "people_masks": "--person"}
"""Options of the command that are not called like their parameters."""

_CLIENT = '''"""The parameters of a request, as the server declares them.

Rendered by `python -m export interface`: change faceclip_serving/contract/parameters.py, not this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict


class Parameters(TypedDict, total=False):
    """Keywords that become tensors of the request. What is left out, or None, the server decides."""

{keywords}


class Option(NamedTuple):
    """A parameter on a command line."""

    name: str
    type: type
    flags: tuple[str, ...]
    doc: str
    values: int = 1
    """How many it has; 0: any number."""
    low: float | None = None
    """The least, where it is the same for all variants; as the next three."""
    high: float | None = None
    longest: int | None = None
    """In characters."""
    names: tuple[str, ...] = ()
    """One of these, whatever their case."""
    is_json: bool = False
    """A JSON object, or its text."""


# fmt: off
OPTIONS = (
{options}
)
'''

_GATEWAY = '''"""The parameters of a request as fields of a JSON body or a form.

Rendered by `python -m export interface`: change faceclip_serving/contract/parameters.py, not this file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field


# fmt: off
class ParameterFields(BaseModel):
    """What is left out, or null, the server decides. Ranges that its variant decides are checked there."""

{fields}
'''

_DOCUMENT = """# Parameters of a request

Rendered by `python -m export interface` from
[faceclip_serving/contract/parameters.py](../faceclip_serving/contract/parameters.py). Every parameter is a tensor of the models
`faceclip` and `faceclip_stream`, a keyword of the Python client, and, where a flag is shown, an option of `faceclip generate`.
Only `prompt` is required. A value outside its range is refused with a message that names the parameter, the range and the value.

| parameter | tensor | default | allowed | flags | meaning |
|---|---|---|---|---|---|
{rows}

Two intervals must not be empty: `guidance_start` is at most `guidance_end`, `id_start` at most `id_end`.

## What the variant decides

| parameter | {names} |
|---|{dashes}
{variants}

A placement may narrow the sizes ([placements](placements.md)). The server tells what it accepts: `faceclip status`, or the parameter
`interface` in the configuration of the model `faceclip`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a file would change")


def run(args: argparse.Namespace) -> int:
    outdated = [path for path, text in rendered().items() if not path.exists() or path.read_text() != text]
    if not args.check:
        for path in outdated:
            path.write_text(rendered()[path])
    print(json.dumps({"outdated" if args.check else "written": [str(path.relative_to(ROOT)) for path in outdated]}))
    return 1 if args.check and outdated else 0


def rendered() -> dict[Path, str]:
    """Every file that follows from the declarations -> its text."""
    from .render import DEFAULT_PLACEMENT, DEFAULT_VARIANT, render

    configs = render(DEFAULT_VARIANT, DEFAULT_PLACEMENT)
    return {
        **{MODEL_REPOSITORY / name / "config.pbtxt": text for name, text in configs.items()},
        CLIENT: client(),
        GATEWAY: gateway(),
        DOCUMENT: document(),
        **{CLIENT.parent / "marks" / name: _COPIED.format(name=name) + (MARKING / name).read_text() for name in READERS},
    }


def client() -> str:
    """client/faceclip/parameters.py."""
    own = [each for each in (*PARAMETERS, PREVIEW) if each.name not in _NOT_THE_CALLERS]
    keywords = [f'    {each.name}: {_type(each)} | None\n    """{_docstring(_sentence(each))}"""' for each in own]
    options = [
        f"    Option({json.dumps(each.name)}, {_TYPES[each.dtype]}, {_tuple(_flags(each))},\n"
        f"           {_string(_sentence(each))}{_values(each)}),"
        for each in own
    ]
    return _CLIENT.format(keywords="\n".join(keywords), options="\n".join(options))


def gateway() -> str:
    """gateway/api/parameters.py."""
    own = [each for each in PARAMETERS if each.name not in (*_NOT_THE_CALLERS, *_NOT_OF_HTTP)]
    return _GATEWAY.format(fields="\n".join(_field(each) for each in own))


def _field(parameter: Parameter) -> str:
    """A field of the gateway's requests, with what of its range is the same for all variants."""
    allowed = None if callable(parameter.allowed) else parameter.allowed
    limits, kind = "", _json_type(parameter)
    if isinstance(allowed, Between):
        limits = f"ge={allowed.low}, le={allowed.high}, "
    elif isinstance(allowed, Text):
        limits = f"max_length={allowed.longest}, "
    elif isinstance(allowed, OneOf):
        kind = f"Literal[{', '.join(json.dumps(name) for name in allowed.names)}]"
    text = _string(_sentence(parameter)).replace("\n           ", "\n        ")
    told = f"{limits}description=\n        {text}"
    return f"    {parameter.name}: Annotated[{kind} | None, Field({told})] = None"


def _json_type(parameter: Parameter) -> str:
    if isinstance(parameter.allowed_of(VARIANTS[_SHOWN[0]]), JsonObject):
        return "dict[str, Any] | str"
    each = _TYPES[parameter.dtype]
    return each if parameter.axes == (1,) else f"list[{each}]"


def _values(parameter: Parameter) -> str:
    """The last arguments of an `Option`, where they are needed."""
    (count,) = parameter.axes
    told: dict[str, object] = {} if count == 1 else {"values": count if isinstance(count, int) else 0}
    allowed = None if callable(parameter.allowed) else parameter.allowed
    if isinstance(allowed, Between):
        told |= {"low": allowed.low, "high": allowed.high}
    elif isinstance(allowed, Text):
        told["longest"] = allowed.longest
    elif isinstance(allowed, OneOf):
        told["names"] = (*allowed.names, *allowed.spellings)
    if isinstance(parameter.allowed_of(VARIANTS[_SHOWN[0]]), JsonObject):
        told["is_json"] = True
    words = ", ".join(f"{name}={_tuple(value) if isinstance(value, tuple) else value}" for name, value in told.items())
    return f",\n           {words}" if words else ""


def document() -> str:
    """docs/parameters.md."""
    rows = [
        f"| `{each.name}` | {each.tensor.describe().replace('[1]', '').strip()} | {_default(each)} | {_allowed(each)}"
        f" | {' '.join(f'`{flag}`' for flag in _flags(each))} | {_cell(each.doc)} |"
        for each in (*PARAMETERS, PREVIEW)
    ]
    shown = [VARIANTS[name] for name in _SHOWN]
    return _DOCUMENT.format(
        rows="\n".join(rows),
        names=" | ".join(f"`{variant.name}`" for variant in shown),
        dashes="---|" * len(shown),
        variants="\n".join(_of_variants(shown)),
    )


def _of_variants(shown: list[Variant]) -> Iterator[str]:
    for each in PARAMETERS:
        if callable(each.default):
            yield f"| `{each.name}`, default | {' | '.join(_value(each.default_of(variant)) for variant in shown)} |"
        if callable(each.allowed):
            yield f"| `{each.name}`, allowed | {' | '.join(each.allowed_of(variant).describe() for variant in shown)} |"


def _flags(parameter: Parameter) -> tuple[str, ...]:
    """`--seed`; shorter ones after it. None where the command has another way, or no use for it."""
    if parameter.name in ("original_prompt", "output_format", "image_encoding", PREVIEW.name):
        return ()
    if parameter.name in _OTHER_FLAGS:
        return (_OTHER_FLAGS[parameter.name],)
    short = tuple(f"-{name}" if len(name) == 1 else f"--{name}" for name in parameter.short)
    return (f"--{parameter.name.replace('_', '-')}", *short)


def _default(parameter: Parameter) -> str:
    if isinstance(parameter.default, Default):
        return parameter.default.value
    return "the variant's" if callable(parameter.default) else _value(parameter.default)


def _allowed(parameter: Parameter) -> str:
    return "the variant's" if callable(parameter.allowed) else parameter.allowed.describe()


def _cell(text: str) -> str:
    """Text within a table of Markdown."""
    return text.replace("|", "\\|")


def _value(value: object) -> str:
    if value == "":
        return "empty"
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def _sentence(parameter: Parameter) -> str:
    """Meaning, range and default, for the client; what the variant decides is told by the server."""
    told = [] if callable(parameter.allowed) or parameter.dtype is DType.BOOL else [parameter.allowed.describe()]
    text = f"{parameter.doc[0].upper()}{parameter.doc[1:]} ({'; '.join([*told, f'default: {_default(parameter)}'])})."
    return text.replace("`", "")


def _docstring(text: str) -> str:
    """Lines of a docstring; quotation marks and backslashes as Python wants them."""
    return "\n    ".join(textwrap.wrap(text.replace("\\", "\\\\").replace('"', '\\"'), 112))


def _string(text: str) -> str:
    """One string literal over several lines."""
    lines = textwrap.wrap(text, 112, drop_whitespace=False)
    return "\n           ".join(json.dumps(line, ensure_ascii=False) for line in lines)


def _type(parameter: Parameter) -> str:
    is_object = isinstance(parameter.allowed_of(VARIANTS[_SHOWN[0]]), JsonObject)
    if is_object:
        return "Mapping[str, Any] | str"
    each = _TYPES[parameter.dtype]
    return each if parameter.axes == (1,) else f"Sequence[{each}]"


def _tuple(items: tuple[str, ...]) -> str:
    return "(" + ", ".join(f'"{item}"' for item in items) + ("," if len(items) == 1 else "") + ")"
