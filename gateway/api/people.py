"""`POST /v1/faces`: who is in a photograph. `POST /v1/verify`: what marks a picture bears. Nothing is drawn, and nothing kept."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from ..keys.dependency import FacesCaller, VerifyCaller
from ..state import gateway_of
from ..web.given_up import unless_given_up
from .bodies import one_file
from .openapi import file_body

router = APIRouter(prefix="/v1", tags=["people and marks"])


@router.post("/faces", openapi_extra=file_body("image"))
async def faces(request: Request, caller: FacesCaller) -> dict[str, Any]:
    """The faces of a photograph by size, with boxes, landmarks, and what the server warns of."""
    photo, fields = await one_file(request, "image")
    looking = gateway_of(request).pool.faces(fields.get("model"), photo, request.state.request_id, caller.tenant)
    return await unless_given_up(request, looking)


@router.post("/verify", openapi_extra=file_body("picture"))
async def verify(request: Request, caller: VerifyCaller) -> dict[str, Any]:
    """What marks a picture bears, each technique by itself. That none was found means nothing."""
    picture, fields = await one_file(request, "picture")
    return await unless_given_up(request, gateway_of(request).pool.verify(fields.get("model"), picture))
