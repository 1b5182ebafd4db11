"""Reading a request: the tensors that came become a `GenerationRequest`, or a refusal in words."""

from __future__ import annotations

import base64
import string
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .allowed import check_length, nearest
from .errors import InvalidRequest
from .parameters import (
    FACE_IMAGES,
    IDENTITY,
    PARAMETERS,
    PEOPLE_MASKS,
    PREVIEW,
    SCALARS,
    Default,
    GenerationRequest,
    Need,
    Parameter,
)
from .tensors import Array, DType, TensorError, bytes_tensor
from .variants.variant import Variant

MAX_ID = 128
"""Characters of a request's id: it goes with each call of another model, and into the log."""
INTERVALS = (("guidance_start", "guidance_end"), ("id_start", "id_end"))


def parse_request(variant: Variant, arrays: Mapping[str, Array]) -> GenerationRequest:
    """Checks the public inputs but the photographs, and fills in the variant's defaults. Raises `InvalidRequest`."""
    request = GenerationRequest(**{parameter.name: read_parameter(parameter, variant, arrays) for parameter in SCALARS})
    for first, last in INTERVALS:
        start, end = getattr(request, first), getattr(request, last)
        if start > end:
            raise InvalidRequest(f"{first}: expected at most {last} ({end:g}), got {start:g}")
    return request


def parse_one(name: str, variant: Variant, arrays: Mapping[str, Array]) -> Any:
    """One parameter of a request, before all others are looked at. Raises `InvalidRequest`."""
    return read_parameter(next(parameter for parameter in SCALARS if parameter.name == name), variant, arrays)


def request_tensors(**values: Any) -> dict[str, Array]:
    """The tensors of a request from plain values, by parameter; `face_images`: a list of files, possibly none; of several
    files one alone may stand for itself."""
    tensors = {}
    for name, value in values.items():
        declared = next((parameter for parameter in PARAMETERS if parameter.name == name), None)
        if declared is None:
            known = ", ".join(parameter.name for parameter in PARAMETERS)
            raise InvalidRequest(f"{name}: expected a parameter of a request, one of {known}")
        items = [value] if declared.axes == (1,) or isinstance(value, bytes) else value
        if not items:
            continue
        if declared.dtype is DType.BYTES:
            tensors[name] = bytes_tensor([item.encode() if isinstance(item, str) else item for item in items])
        else:
            tensors[name] = np.array(items, declared.dtype.numpy).ravel()
    return tensors


def reference_photos(variant: Variant, arrays: Mapping[str, Array]) -> list[bytes]:
    """The encoded photographs of a request, possibly none. Raises `InvalidRequest`."""
    return list(several_files(FACE_IMAGES, variant, arrays).values())


_KINDS = {FACE_IMAGES.name: "a photograph", IDENTITY.name: "a sealed identity", PEOPLE_MASKS.name: "a mask"}


def several_files(parameter: Parameter, variant: Variant, arrays: Mapping[str, Array]) -> dict[str, bytes]:
    """The files of a parameter that is several, by their names in messages, `face_images[0]` say. Raises `InvalidRequest`."""
    if parameter.name not in arrays:
        return {}
    items = parameter.allowed_of(variant).read(parameter.name, _checked(parameter, arrays))
    names = (
        [parameter.name] if parameter is IDENTITY and len(items) == 1 else [f"{parameter.name}[{i}]" for i in range(len(items))]
    )
    encoded = [item.encode() if isinstance(item, str) else bytes(item) for item in items]
    return {name: picture_file(name, item, _KINDS[parameter.name]) for name, item in zip(names, encoded, strict=True)}


def picture_of(parameter: Parameter, arrays: Mapping[str, Array]) -> bytes | None:
    """The file of a parameter that is one picture; None: it did not come. Raises `InvalidRequest`."""
    if parameter.name not in arrays:
        return None
    (content,) = _checked(parameter, arrays)
    return picture_file(parameter.name, content.encode() if isinstance(content, str) else bytes(content))


def warn_of_idle(variant: Variant, arrays: Mapping[str, Array], request: GenerationRequest, met: Collection[Need]) -> list[str]:
    """Warnings about parameters that were set and have no effect. `met`: what this request brings."""
    return [
        f"{parameter.name}: it has no effect here; it needs {parameter.needs.value}"
        for parameter in SCALARS
        if parameter.name in arrays
        and parameter.needs is not None
        and parameter.needs not in met
        and getattr(request, parameter.name) != parameter.default_of(variant)
    ]


PASSED_ON = ("timeout", "priority", "id", "sequence_id", "sequence_start", "sequence_end", "binary_data_output")
"""Request parameters of Triton's own, which server 2.51 hands on to the models in some cases."""
PREFIXES = ("triton_", "faceclip_", "x-")
"""What else may come beside the tensors: Triton's marks, ours, and HTTP headers that an operator has the server hand on."""


def check_id(name: str, value: str) -> str:
    """A request's id as it came. `name`: of what brought it. Raises `InvalidRequest` where it is longer than `MAX_ID`, or holds a NUL, at
    which Triton cuts the id of a request."""
    check_length(name, value, MAX_ID)
    if "\0" in value:
        raise InvalidRequest(f"{name}: expected text without the character NUL, at which the server would cut it; leave it out")
    return value


def check_names(names: Iterable[str], known: Sequence[str]) -> None:
    """Refuses request parameters that nobody reads. Triton's `generate` makes them of names that the model does not have.

    `known`: the tensors of the model. Raises `InvalidRequest`.
    """
    for name in names:
        if name in PASSED_ON or name.lower().startswith(PREFIXES):
            continue
        if name in known:
            cure = "; send it as an input, not among the request's parameters"
        elif name == PREVIEW.name:
            cure = "; only streams have previews, so leave it out here"
        else:
            meant = next((each.name for each in PARAMETERS if name in each.short), name)  # `steps`, as on the command line
            cure = nearest(meant, known) or f"; known are {', '.join(known)}"
        raise InvalidRequest(f"{name}: this model has no such parameter{cure}")


def to_wire(files: Sequence[bytes], image_encoding: str) -> Array:
    """Encoded pictures as a BYTES tensor, object [n], in the request's `image_encoding`."""
    return bytes_tensor([base64.b64encode(file) for file in files] if image_encoding == "base64" else files)


def read_parameter(parameter: Parameter, variant: Variant, arrays: Mapping[str, Array]) -> Any:
    """Its value in a request, or its default. Raises `InvalidRequest`."""
    if parameter.name in arrays:
        return parameter.allowed_of(variant).read(parameter.name, _value(parameter, arrays))
    value = parameter.default_of(variant)
    return parameter.allowed_of(variant).read(parameter.name, value) if parameter.default is Default.REQUIRED else value


def _value(parameter: Parameter, arrays: Mapping[str, Array]) -> Any:
    values = _checked(parameter, arrays)
    if parameter.axes != (1,):
        return values.tolist()
    value = values[0]
    if parameter.dtype is not DType.BYTES:
        return value.item()
    if isinstance(value, str):
        return value
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{parameter.name}: expected UTF-8 text, got bytes that are not ({error.reason} at {error.start})"
        ) from None


def _checked(parameter: Parameter, arrays: Mapping[str, Array]) -> Array:
    try:
        parameter.tensor.check(arrays[parameter.name], "request")
    except TensorError as error:
        told = str(error).removeprefix(f"request: tensor '{parameter.name}': ")
        raise InvalidRequest(f"{parameter.name}: {told}") from None
    return arrays[parameter.name]


_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=" + string.whitespace.encode()
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_HEAD = 256
"""So many bytes tell text from a picture's file: all formats have bytes early on that base64 does not have."""


def picture_file(name: str, content: bytes, what: str = "a photograph") -> bytes:
    """A picture's file from what came: the file itself, or base64: plain, in lines, URL-safe, without padding, a data URL.

    `name`: of the parameter, `what`: the file is of, for messages. Raises `InvalidRequest`.
    """
    head = content[:_HEAD].lstrip()
    if head.lower().startswith((b"http://", b"https://")):
        raise InvalidRequest(f"{name}: expected {what}, got a URL, which the server does not fetch; send the file, as base64")
    text = content
    if head.lower().startswith(b"data:"):
        declared, comma, text = content.partition(b",")
        if not comma or not declared.lower().endswith(b";base64"):
            raise InvalidRequest(
                f"{name}: expected a data URL that contains ';base64,', got another one; send the file, as base64"
            )
    elif content[:_HEAD].translate(None, _BASE64):
        return content
    plain = text.translate(_TO_STANDARD, string.whitespace.encode())
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except ValueError as error:
        raise InvalidRequest(
            f"{name}: expected {what}'s file, or base64 of it, got {len(content)} bytes of text that are neither ({error});"
            " encode the whole file"
        ) from None
