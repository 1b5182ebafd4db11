"""The body of a request, read within limits before anything is decoded."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.requests import ClientDisconnect, Request

from ..errors import ApiError, invalid
from ..state import gateway_of
from .fields import Model, checked
from .multipart import Part, parts_of
from .requests import ImageRequest, image_request_of

DEEPEST_JSON = 16
_JSON, _FORM = "application/json", "multipart/form-data"
_PHOTOGRAPHS = ("image", "face_images", "face_image")
"""Parts that are photographs of the person; `image` is OpenAI's name."""
_FILES = (*_PHOTOGRAPHS, "picture", "mask", "identity", "people_masks")
_LISTS = ("face_index", "face_boxes", "face_box")
"""Parameters that are several numbers: repeated parts, commas, or JSON."""


async def image_request(request: Request) -> ImageRequest:
    """Of JSON or of a form. Raises `ApiError`."""
    kind = content_type(request, _JSON, _FORM)
    body = await whole_body(request)
    if kind == _JSON:
        return await asyncio.to_thread(_of_json, body)
    most = gateway_of(request).settings.upload_parts
    return await asyncio.to_thread(_of_form, body, request.headers["content-type"], most)


async def json_request(request: Request, model: type[Model]) -> Model:
    """Of JSON alone. Raises `ApiError`."""
    content_type(request, _JSON)
    body = await whole_body(request)
    return await asyncio.to_thread(lambda: checked(model, parsed(body), strict=True))


async def one_file(request: Request, name: str) -> tuple[bytes, dict[str, str]]:
    """The file of a form that is called so, and its other fields, of which there may be `model`."""
    content_type(request, _FORM)
    body, most = await whole_body(request), gateway_of(request).settings.upload_parts
    parts = await asyncio.to_thread(parts_of, body, request.headers["content-type"], most)
    files = [part.content for part in parts if part.name == name]
    if len(files) != 1 or not files[0]:
        raise invalid(name, f"expected one file, got {len(files) if files != [b''] else 'an empty one'}")
    others = {part.name: part.text for part in parts if part.name != name}
    for other in others.keys() - {"model"}:
        raise invalid(other[:80], f"no such parameter; expected {name}, and model", code="unknown_parameter")
    return files[0], others


def content_type(request: Request, *expected: str) -> str:
    """Which of them the body is. Raises `ApiError` (415)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in expected:
        raise ApiError(415, f"Content-Type: expected {' or '.join(expected)}, got '{kind[:80]}'", code="unsupported_media_type")
    return kind


async def whole_body(request: Request) -> bytes:
    """Within the limits of `web.uploads`. Raises `ApiError`."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise ApiError(400, "the body ended before its length", code="body_incomplete") from None


def parsed(body: bytes) -> Any:
    """What a JSON body says. Raises `ApiError` (400)."""
    try:
        document = json.loads(body, parse_constant=_no_number)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise ApiError(400, f"expected a JSON body, got something else ({str(error)[:120]})", code="invalid_json") from None
    level = [document]
    for _ in range(DEEPEST_JSON):
        level = [
            item
            for each in level
            if isinstance(each, dict | list)
            for item in (each.values() if isinstance(each, dict) else each)
        ]
    if level:
        raise _too_deep()
    return document


def _too_deep() -> ApiError:
    return ApiError(400, f"expected JSON of at most {DEEPEST_JSON} levels, got more", code="invalid_json")


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _of_json(body: bytes) -> ImageRequest:
    return image_request_of(parsed(body), strict=True)


def _of_form(body: bytes, content_type: str, most: int) -> ImageRequest:
    parts = parts_of(body, content_type, most)
    files: dict[str, list[bytes]] = {}
    texts: dict[str, Any] = {}
    for part in parts:
        if part.is_file and part.name in _FILES:
            if not part.content:
                raise invalid(part.name, "expected a file, got an empty one")
            files.setdefault("face_images" if part.name in _PHOTOGRAPHS else part.name, []).append(part.content)
        elif part.name in _LISTS:
            texts.setdefault(part.name, []).extend(_numbers(part))
        elif part.name in texts:
            raise invalid(part.name, "expected it once, got it twice")
        else:
            texts[part.name] = part.text
    if "image" in texts:
        raise invalid("image", "expected a file, got a text; send it with a file name")
    _choose_picture(files, texts)
    return image_request_of(texts, strict=False, files=files)


def _choose_picture(files: dict[str, list[bytes]], texts: dict[str, Any]) -> None:
    """`picture` is to be changed; with a mask and no `picture`, the first photograph, as OpenAI's callers expect."""
    photographs = files.get("face_images", [])
    masked = "mask" in files or texts.get("mask", "none").lower() != "none"
    if masked and "picture" not in files and photographs:
        files["picture"], files["face_images"] = photographs[:1], photographs[1:]
    for name in ("picture", "mask"):
        if len(files.get(name, [])) > 1:
            raise invalid(name, f"expected one file, got {len(files[name])}")
    if "picture" in files:
        files["image"] = files.pop("picture")


def _numbers(part: Part) -> list[Any]:
    """The numbers of a part: one, several with commas, or JSON."""
    text = part.text.strip()
    try:
        found = json.loads(text if text.startswith("[") else f"[{text}]")
    except (ValueError, RecursionError):
        raise invalid(part.name, f"expected numbers with commas between, got {text[:80]!r}") from None
    return found if isinstance(found, list) else [found]
