"""What a translator is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Translator = Callable[[str, str], tuple[str, Sequence[str]]]
"""(prompt, language) -> (English, words that it left)."""


class TranslationError(Exception):
    """Why a text was not translated."""


def checked_text(who: str, text: Any) -> str:
    """What a plug-in or a service gave. Raises `TranslationError` where it is no text."""
    if not isinstance(text, str):
        raise TranslationError(f'{who}: expected a text, as {{"prompt": "…"}} over HTTP, got {type(text).__name__}')
    return text
