"""What OpenAPI says of bodies that are read by our own code, within limits."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from .requests import ImageRequest

_FILE = {"type": "string", "format": "binary"}
_FILES = {"type": "array", "items": _FILE}


def _schema() -> dict[str, Any]:
    schema = ImageRequest.model_json_schema()
    schema.pop("$defs", None)
    return schema


def _form() -> dict[str, Any]:
    schema = _schema()
    own = {name: each for name, each in schema["properties"].items() if name not in ("image", "mask", "face_images")}
    files = {"image": _FILES, "face_images": _FILES, "picture": _FILE, "mask": _FILE}
    return {**schema, "title": "ImageForm", "properties": {**own, **files}}


IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _schema()}, "multipart/form-data": {"schema": _form()}},
    }
}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """A JSON document of these fields."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


def file_body(name: str) -> dict[str, Any]:
    """A form with one file."""
    schema = {"type": "object", "required": [name], "properties": {name: _FILE, "model": {"type": "string"}}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
