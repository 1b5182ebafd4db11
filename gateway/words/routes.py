"""`/v1/recipes` and `/v1/prompts/translate`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from faceclip.errors import InvalidRequestError
from faceclip.language import MAX_CHARACTERS, translate
from faceclip.language.apart import apart
from faceclip.recipes import Recipe, load

from ..api.bodies import json_request
from ..api.openapi import json_body
from ..errors import ApiError, invalid
from ..keys.dependency import AnyCaller, ImagesCaller
from ..web.given_up import unless_given_up

router = APIRouter(tags=["words"])


class TranslationRequest(BaseModel):
    """A prompt that is to be read by a network."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1, max_length=MAX_CHARACTERS, description="What the picture shows, in any language.")
    prompt_language: Literal["auto", "en", "off"] = Field("auto", description="As of a request for pictures.")


class FillRequest(BaseModel):
    """Choices of a recipe."""

    model_config = ConfigDict(extra="forbid")

    choices: dict[str, str] = Field(
        default_factory=dict, description="Name of a choice -> name of its option; others have their first."
    )


@router.get("/v1/recipes")
async def recipes(caller: AnyCaller) -> dict[str, Any]:
    """Uses, ready made: what each needs, its prompt with choices, its parameters and why, in English and Chinese."""
    return {"object": "list", "data": [recipe.as_json() for recipe in load().values()]}


@router.get("/v1/recipes/{name}")
async def recipe(caller: AnyCaller, name: str) -> dict[str, Any]:
    return _found(name).as_json()


@router.post("/v1/recipes/{name}", openapi_extra=json_body(FillRequest))
async def fill(request: Request, caller: AnyCaller, name: str) -> dict[str, Any]:
    """`options`: the fields of a request for pictures, `prompt` among them, with these choices."""
    found, asked = _found(name), await json_request(request, FillRequest)
    try:
        return {"object": "recipe.filled", "name": name, "options": found.fill(**asked.choices)}
    except InvalidRequestError as error:
        raise invalid("choices", str(error)) from error


@router.post("/v1/prompts/translate", openapi_extra=json_body(TranslationRequest))
async def translated(request: Request, caller: ImagesCaller) -> dict[str, Any]:
    """The English that a network would get of a prompt, and what of it nobody could translate. Draws nothing."""
    asked = await json_request(request, TranslationRequest)
    translating = apart((asked.prompt,), asked.prompt_language, translate, asked.prompt, asked.prompt_language)
    done = await unless_given_up(request, translating)
    return {"object": "prompt.translation", **asdict(done)}


def _found(name: str) -> Recipe:
    if name not in load():
        raise ApiError(
            404, f"recipe: expected one of {', '.join(load())}, got {name[:80]!r}", code="recipe_not_found", param="recipe"
        )
    return load()[name]
