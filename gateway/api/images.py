"""`POST /v1/images/generations`."""

from __future__ import annotations

import base64
import time
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Depends, Request

from faceclip import FaceCLIPOutput

from ..drawing import Drawing
from ..errors import ApiError
from ..keys.caller import Caller
from ..keys.dependency import allowed
from ..state import Gateway, gateway_of
from .bodies import image_request
from .requests import ImageRequest

router = APIRouter(prefix="/v1", tags=["images"])


@router.post("/images/generations")
async def generations(request: Request, caller: Caller = Depends(allowed("images"))) -> dict[str, Any]:
    gateway = gateway_of(request)
    asked = await image_request(request)
    drawing = asked.to_drawing(request.state.request_id, caller.tenant, caller.priority, gateway.settings.timeout)
    return image_response(asked, await result(gateway, drawing))


async def result(gateway: Gateway, drawing: Drawing) -> FaceCLIPOutput:
    last = None
    async with aclosing(gateway.pool.draw(drawing)) as events:
        async for event in events:
            last = event
    if not isinstance(last, FaceCLIPOutput):
        raise ApiError(500, "the server ended without pictures", code="server_error")
    return last


def image_response(asked: ImageRequest, output: FaceCLIPOutput) -> dict[str, Any]:
    """OpenAI's answer: each picture with its seed beside it, and `details`."""
    data = [
        {"b64_json": base64.b64encode(file).decode(), "url": None, "revised_prompt": None, "seed": seed}
        for file, seed in zip(output.files, output.seeds, strict=True)
    ]
    made = output.provenance[0]
    return {
        "created": int(time.time()),
        "data": data,
        "size": f"{made.width}x{made.height}",
        "output_format": made.format.lower(),
        "background": "opaque",
        "details": {**output.details, "warnings": [*output.warnings, *asked.warnings]},
    }
