"""A translator that is a service over HTTP. Apart, since what speaks HTTP takes a while to import."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from typing import Any

from .translator import TranslationError, Translator, checked_text

TIMEOUT_S = 5.0
MAX_ANSWER = 65_536
"""Bytes."""


def over_http(url: str, timeout_s: float = TIMEOUT_S) -> Translator:
    """A service that is sent {"prompt", "language"} and answers {"prompt"}, both JSON. It is not followed elsewhere."""

    def ask(prompt: str, language: str) -> tuple[str, Sequence[str]]:
        body = json.dumps({"prompt": prompt, "language": language}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with _OPENER.open(request, timeout=timeout_s) as answer:
                content = answer.read(MAX_ANSWER + 1)
        except (OSError, ValueError) as error:
            raise TranslationError(f"{url}: {error}") from error
        if len(content) > MAX_ANSWER:
            raise TranslationError(f"{url}: expected at most {MAX_ANSWER} bytes")
        try:
            told = json.loads(content)
        except ValueError:
            told = None
        return checked_text(url, told.get("prompt") if isinstance(told, dict) else None), ()

    return ask


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)
