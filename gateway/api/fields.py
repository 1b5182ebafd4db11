"""A JSON body's fields, checked against a model, and told by name where they are wrong."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import ApiError, invalid

Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], body: Any, *, strict: bool) -> Model:
    """What a body says. `strict`: of JSON, whose values have types; a form has texts alone. Raises `ApiError` (400)."""
    if not isinstance(body, dict):
        raise ApiError(400, f"expected a JSON object, got {type(body).__name__}", code="invalid_json")
    try:
        return model.model_validate(body, strict=strict)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        name = str(found["loc"][0]) if found["loc"] else None
        if found["type"] == "extra_forbidden" and name:
            close = difflib.get_close_matches(name, model.model_fields, n=1)
            cure = f"did you mean '{close[0]}'?" if close else "see /docs for all"
            raise invalid(name[:80], f"no such parameter; {cure}", code="unknown_parameter") from None
        if found["type"] == "missing":
            raise invalid(name, "a value is required, got none", code="missing_required_parameter") from None
        reason = (
            found["msg"]
            .replace("Input should be", "expected")
            .replace("String should", "the text should")
            .replace("List should", "the list should")
        )
        raise invalid(name, f"{reason}, got {repr(found['input'])[:80]}") from None
