"""Who translates: an HTTP service, a plug-in of another package, or what this package has for Chinese.

$FACECLIP_TRANSLATOR names one for all languages: a URL, a plug-in's name, or a folder that `python -m export translator` wrote. Else a
plug-in whose name is the language's code counts, then the built-in one. A plug-in is an entry point of the group
`faceclip.translators`: a callable that is given a prompt and a language code, and returns the English text, or raises `TranslationError`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from .translator import TranslationError, Translator, checked_text

PromptLanguage = Literal["auto", "en", "off"]
GROUP = "faceclip.translators"
ENVIRONMENT_VARIABLE = "FACECLIP_TRANSLATOR"
FAILED = (Exception,)
"""What a translator may raise: a plug-in is somebody else's code, and a prompt is worth more than its translation."""


def service_url() -> str:
    """Of the service that translates all languages; empty: none is chosen."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE, "")
    return chosen if chosen.startswith(("http://", "https://")) else ""


def translator_for(language: str) -> Translator:
    """Raises `TranslationError` where there is none."""
    if url := service_url():
        from .service import over_http

        return over_http(url)
    chosen = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if os.sep in chosen:
        return _of_folder(Path(chosen))
    plugins = {each.name: each for each in metadata.entry_points(group=GROUP)}
    if chosen and chosen not in plugins:
        known = ", ".join(sorted(plugins)) or "none"
        raise TranslationError(
            f"${ENVIRONMENT_VARIABLE}: expected a URL, a folder with a / or one of the installed plug-ins ({known}), got '{chosen}'"
        )
    if plugin := plugins.get(chosen or language):
        return _plugged(plugin.name, plugin.load())
    if language == "zh":
        return _chinese
    raise TranslationError(f"no translator for '{language}' is installed; write English, or see docs/languages.md for plug-ins")


def _of_folder(folder: Path) -> Translator:
    try:
        from .marian import of_folder

        return of_folder(folder)
    except ModuleNotFoundError as error:
        raise TranslationError(f"{error}; to run a translator here: pip install 'faceclip-client[opus]'") from error


def _plugged(name: str, function: Callable[[str, str], Any]) -> Translator:
    def ask(prompt: str, language: str) -> tuple[str, Sequence[str]]:
        return checked_text(f"plug-in '{name}'", function(prompt, language)), ()

    return ask


def _chinese(prompt: str, language: str) -> tuple[str, Sequence[str]]:
    try:
        from .chinese import translate

        return translate(prompt)
    except ModuleNotFoundError as error:
        raise TranslationError(f"{error}; to translate Chinese here: pip install 'faceclip-client[chinese]'") from error
