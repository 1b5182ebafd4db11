"""The body of a request, read within limits before anything is decoded."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from ..errors import ApiError
from ..state import gateway_of
from .requests import ImageRequest, checked

DEEPEST_JSON = 16


async def image_request(request: Request) -> ImageRequest:
    """Of a JSON body. Raises `ApiError`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"Content-Type: expected application/json, got '{kind[:80]}'", code="unsupported_media_type")
    return checked(parsed(await whole_body(request)), strict=True)


async def whole_body(request: Request) -> bytes:
    limit = int(gateway_of(request).settings.upload_mib * 2**20)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise ApiError(413, f"the body is larger than {limit} bytes; send fewer or smaller pictures", code="body_too_large")
    return bytes(body)


def parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"expected a JSON body, got something else ({error})", code="invalid_json") from None
