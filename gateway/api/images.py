"""`POST /v1/images/generations` and `/v1/images/edits`, as OpenAI's; the answer at once, or as events while the picture grows."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from faceclip import FaceCLIPOutput, Progress

from ..drawing import Drawing
from ..errors import BUSY_RETRY_S, ApiError, invalid
from ..keys.caller import Caller
from ..keys.dependency import ImagesCaller
from ..state import Gateway, gateway_of
from ..web.events import EventStream, event
from ..web.given_up import unless_given_up
from .bodies import image_request
from .openapi import IMAGE_BODY
from .requests import ImageRequest

router = APIRouter(prefix="/v1", tags=["images"])


@router.post("/images/generations", openapi_extra=IMAGE_BODY)
async def generations(request: Request, caller: ImagesCaller) -> Response:
    """Draws a picture of a prompt, and of the person in `face_images`."""
    return await _answer(request, caller, await image_request(request), "image_generation")


@router.post("/images/edits", openapi_extra=IMAGE_BODY)
async def edits(request: Request, caller: ImagesCaller) -> Response:
    """The same with photographs in a form: `image` or `image[]` are of the person. `picture` is a picture to change, `mask` where."""
    asked = await image_request(request)
    if not asked.has_pictures:
        raise invalid("image", "expected a photograph of the person, got none; without one call /v1/images/generations")
    return await _answer(request, caller, asked, "image_edit")


async def _answer(request: Request, caller: Caller, asked: ImageRequest, kind: str) -> Response:
    gateway = gateway_of(request)
    if asked.webhook_url is not None:
        raise invalid(
            "webhook_url",
            "expected none here, where the answer waits for the picture; leave it out, or send it all to /v1/jobs",
        )
    unread = {"response_format": "b64_json"} if asked.stream else {"partial_images": 0}
    limit_s = gateway.settings.timeout
    drawing = await asyncio.to_thread(
        asked.to_drawing, request.state.request_id, caller.tenant, caller.priority, limit_s, unread
    )
    events = _limited(gateway, caller, replace(drawing, steps=bool(asked.stream)))
    if not asked.stream:
        output = await unless_given_up(request, result(events))
        return JSONResponse(image_response(output, await _addresses(request, asked, output)))
    # An error before the first event has a status of its own; afterwards it is an event.
    first = await unless_given_up(request, _first(events))
    return EventStream(_told(asked, kind, first, events))


async def _addresses(request: Request, asked: ImageRequest, output: FaceCLIPOutput) -> list[str] | None:
    """Where the pictures can be fetched, for a time; None: they are in the answer."""
    if asked.response_format != "url":
        return None
    gateway = gateway_of(request)
    try:
        paths = await gateway.jobs.keep(output)
    except OSError as error:
        why = f"the result store cannot be written ({error.strerror}); ask for response_format b64_json"
        raise ApiError(503, why, code="store_unwritable", retry_after_s=BUSY_RETRY_S) from error
    base = (gateway.settings.public_url or str(request.base_url)).rstrip("/")
    return [base + path for path in paths]


async def _limited(gateway: Gateway, caller: Caller, drawing: Drawing) -> AsyncGenerator[Progress | FaceCLIPOutput, None]:
    """The drawing, within what the caller may."""
    async with gateway.usage.slot(caller):
        day = await gateway.usage.admit(caller, drawing, gateway.pool)
        drawn = False
        try:
            async with aclosing(gateway.pool.draw(drawing)) as events:
                async for each in events:
                    drawn = drawn or isinstance(each, FaceCLIPOutput)
                    yield each
        finally:
            if not drawn:
                await gateway.usage.give_back(caller, drawing, day)


async def _first(events: AsyncGenerator[Progress | FaceCLIPOutput, None]) -> Progress | FaceCLIPOutput:
    try:
        return await anext(events)
    except BaseException:
        await events.aclose()
        raise


async def result(events: AsyncGenerator[Progress | FaceCLIPOutput, None]) -> FaceCLIPOutput:
    """The last of the events. Raises `ApiError`."""
    last = None
    async with aclosing(events):
        async for each in events:
            last = each
    if not isinstance(last, FaceCLIPOutput):
        raise ApiError(500, "the server ended without pictures", code="server_error")
    return last


async def _told(
    asked: ImageRequest, kind: str, first: Progress | FaceCLIPOutput, events: AsyncGenerator[Progress | FaceCLIPOutput, None]
) -> AsyncGenerator[bytes, None]:
    """Events as OpenAI's: `partial_images` rough pictures, evenly over the steps, then a completed one for each picture."""
    wanted, sent, each = asked.partial_images or 0, 0, first
    async with aclosing(events):
        while True:
            if isinstance(each, FaceCLIPOutput):
                for answer in _completed(kind, each):
                    yield answer
                return
            if each.preview is not None and sent < wanted and each.step * (wanted + 1) >= each.total * (sent + 1):
                file = io.BytesIO()
                each.preview.save(file, "PNG")
                data = _event_data(f"{kind}.partial_image", file.getvalue(), "png", each.preview.size)
                yield event(
                    f"{kind}.partial_image", {**data, "partial_image_index": sent, "step": each.step, "total": each.total}
                )
                sent += 1
            each = await anext(events)


def _completed(kind: str, output: FaceCLIPOutput) -> list[bytes]:
    answer = image_response(output)
    told: list[bytes] = []
    for file, made, picture in zip(output.files, output.provenance, answer["data"], strict=True):
        data = _event_data(f"{kind}.completed", file, made.format.lower(), (made.width, made.height))
        more = {
            "seed": picture["seed"],
            "index": len(told),
            "revised_prompt": picture["revised_prompt"],
            "details": answer["details"],
            "usage": answer["usage"],
        }
        told.append(event(f"{kind}.completed", {**data, **more}))
    return told


def _event_data(type: str, file: bytes, format: str, size: tuple[int, int]) -> dict[str, Any]:
    return {
        "type": type,
        "b64_json": base64.b64encode(file).decode(),
        "created_at": int(time.time()),
        "size": f"{size[0]}x{size[1]}",
        "quality": "auto",
        "background": "opaque",
        "output_format": format,
    }


def image_response(output: FaceCLIPOutput, urls: list[str] | None = None) -> dict[str, Any]:
    """OpenAI's answer, with the seed beside each picture, and `details`. `revised_prompt`: the English that was used in its place.

    `urls`: where the pictures are, in the place of their content.
    """
    revised = output.details.get("prompt_language", {}).get("prompt")
    data = [
        {
            "b64_json": base64.b64encode(file).decode() if urls is None else None,
            "url": None if urls is None else urls[i],
            "revised_prompt": revised,
            "seed": seed,
        }
        for i, (file, seed) in enumerate(zip(output.files, output.seeds, strict=True))
    ]
    made = output.provenance[0]
    return {
        "created": int(time.time()),
        "data": data,
        "size": f"{made.width}x{made.height}",
        "quality": "auto",
        "background": "opaque",
        "output_format": made.format.lower(),
        "usage": _USAGE,
        "details": output.details,
    }


_USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}
"""There is no price by tokens here; OpenAI's package wants the numbers."""
