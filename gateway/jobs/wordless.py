"""The server's report of a drawing without the words that were asked: what may be kept after its job has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXTS = ("prompt", "negative_prompt")
_LANGUAGE = ("language", "translated")


def without_words(details: Mapping[str, Any]) -> dict[str, Any]:
    """Prompts, those of people, translations, and warnings that quote a word that could not be translated, are left out."""
    kept = dict(details)
    spoken = kept.get("prompt_language") or {}
    if spoken:
        kept["prompt_language"] = {name: spoken[name] for name in _LANGUAGE if name in spoken}
    unknown = spoken.get("unknown") or ()
    kept["warnings"] = [each for each in kept.get("warnings") or () if not any(word in each for word in unknown)]
    if parameters := kept.get("parameters"):
        kept["parameters"] = _without_texts(parameters)
        if people := parameters.get("people"):
            kept["parameters"]["people"] = [_without_texts(person) for person in people]
    return kept


def _without_texts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in _TEXTS}
