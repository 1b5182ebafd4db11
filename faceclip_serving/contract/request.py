"""Reading a request: the tensors that came become a `GenerationRequest`, or a refusal in words."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .errors import InvalidRequest
from .parameters import FACE_IMAGES, PARAMETERS, SCALARS, Default, GenerationRequest, Parameter
from .tensors import Array, DType, TensorError, bytes_tensor
from .variant import Variant

INTERVALS = (("guidance_start", "guidance_end"), ("id_start", "id_end"))


def parse_request(variant: Variant, arrays: Mapping[str, Array]) -> GenerationRequest:
    """Checks the public inputs but the photographs, and fills in the variant's defaults. Raises `InvalidRequest`."""
    request = GenerationRequest(**{parameter.name: _read(parameter, variant, arrays) for parameter in SCALARS})
    for first, last in INTERVALS:
        start, end = getattr(request, first), getattr(request, last)
        if start > end:
            raise InvalidRequest(f"{first}: expected at most {last} ({end:g}), got {start:g}")
    return request


def request_tensors(**values: Any) -> dict[str, Array]:
    """The tensors of a request from plain values, by parameter; `face_images`: a list of files, possibly none."""
    tensors = {}
    for name, value in values.items():
        declared = next((parameter for parameter in PARAMETERS if parameter.name == name), None)
        if declared is None:
            known = ", ".join(parameter.name for parameter in PARAMETERS)
            raise InvalidRequest(f"{name}: expected a parameter of a request, one of {known}")
        items = value if declared is FACE_IMAGES else [value]
        if not items:
            continue
        if declared.dtype is DType.BYTES:
            tensors[name] = bytes_tensor([item.encode() if isinstance(item, str) else item for item in items])
        else:
            tensors[name] = np.array(items, declared.dtype.numpy)
    return tensors


def reference_photos(variant: Variant, arrays: Mapping[str, Array], image_encoding: str = "binary") -> list[bytes]:
    """The encoded photographs of a request, possibly none. Raises `InvalidRequest`."""
    if FACE_IMAGES.name not in arrays:
        return []
    photos = FACE_IMAGES.allowed_of(variant).read(FACE_IMAGES.name, _checked(FACE_IMAGES, arrays))
    encoded = [photo.encode() if isinstance(photo, str) else bytes(photo) for photo in photos]
    return [_from_base64(i, photo) for i, photo in enumerate(encoded)] if image_encoding == "base64" else encoded


def to_wire(files: Sequence[bytes], image_encoding: str) -> Array:
    """Encoded pictures as a BYTES tensor, object [n], in the request's `image_encoding`."""
    return bytes_tensor([base64.b64encode(file) for file in files] if image_encoding == "base64" else files)


def _read(parameter: Parameter, variant: Variant, arrays: Mapping[str, Array]) -> Any:
    if parameter.name in arrays:
        return parameter.allowed_of(variant).read(parameter.name, _value(parameter, arrays))
    value = parameter.default_of(variant)
    return parameter.allowed_of(variant).read(parameter.name, value) if parameter.default is Default.REQUIRED else value


def _value(parameter: Parameter, arrays: Mapping[str, Array]) -> Any:
    value = _checked(parameter, arrays)[0]
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


def _from_base64(index: int, text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InvalidRequest(
            f"face_images[{index}]: expected base64, as image_encoding says, got other text ({error})"
        ) from None
