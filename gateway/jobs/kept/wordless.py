"""What the server said of a drawing without the words that were asked: what may be kept after its job has ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TEXTS = ("prompt", "negative_prompt", "original_prompt")
_LANGUAGE = ("language", "translated")
_QUOTED = re.compile(r"""(?<!\w)['"](?:.*['"](?!\w)|.*)""", re.DOTALL)
"""From the first quote to the last, or to the end where a quotation was cut: what is quoted may have quotes of its own."""


def without_words(details: Mapping[str, Any]) -> dict[str, Any]:
    """Prompts, those of people, translations, warnings of a word that could not be translated, and all quotations are left out."""
    kept = dict(details)
    spoken = kept.get("prompt_language") or {}
    if spoken:
        kept["prompt_language"] = {name: spoken[name] for name in _LANGUAGE if name in spoken}
    unknown = spoken.get("unknown") or ()
    told = [each for each in kept.get("warnings") or () if not any(word in each for word in unknown)]
    kept["warnings"] = [without_quotations(each) for each in told]
    if parameters := kept.get("parameters"):
        kept["parameters"] = _without_texts(parameters)
        if people := parameters.get("people"):
            kept["parameters"]["people"] = [_without_texts(person) for person in people]
    return kept


def without_quotations(message: str) -> str:
    """Which parameter, what was expected, and the cure stay."""
    return _QUOTED.sub("'…'", message)


def _without_texts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in _TEXTS}
