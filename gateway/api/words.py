"""`POST /v1/prompts/translate`: a prompt in English, as a drawing would have it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request

from faceclip.language import translate

from ..errors import from_client, invalid
from ..keys.dependency import ImagesCaller
from .bodies import json_body

router = APIRouter(prefix="/v1", tags=["words"])
_FIELDS = ("prompt", "prompt_language")
_PROPERTIES = {"prompt": {"type": "string"}, "prompt_language": {"enum": ["auto", "en", "off"], "default": "auto"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object", "required": ["prompt"], "properties": _PROPERTIES}}},
    }
}


@router.post("/prompts/translate", openapi_extra=_BODY)
async def translated(request: Request, caller: ImagesCaller) -> dict[str, Any]:
    """The English that would be used, the language that was found, and the words that stayed as they were."""
    body = await json_body(request)
    if not isinstance(body, dict):
        raise invalid("prompt", "expected a JSON object with a prompt")
    for name in body:
        if name not in _FIELDS:
            raise invalid(str(name)[:80], f"no such parameter; expected {' or '.join(_FIELDS)}", code="unknown_parameter")
    prompt, language = body.get("prompt"), body.get("prompt_language") or "auto"
    if not isinstance(prompt, str) or not 0 < len(prompt) <= 10_000:
        raise invalid("prompt", "expected a text of 1 to 10000 characters")
    if not isinstance(language, str):
        raise invalid("prompt_language", f"expected auto, en or off, got {language!r}")
    try:
        return asdict(await asyncio.to_thread(translate, prompt, language))
    except ValueError as error:
        raise from_client(error) from error
