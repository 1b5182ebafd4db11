"""Prompts in the user's language: networks that read English get English.

`translate` finds the language by its script and asks a translator for it: a plug-in, or for Chinese the one in this package, which
needs the extra `chinese`. Nothing that a translator needs is imported before a text needs it. What cannot be translated is used as it
is, with a warning; see docs/languages.md.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Any, get_args

from ..errors import InvalidRequestError
from .translator import Translator
from .translators import FAILED, PromptLanguage, translator_for

MAX_CHARACTERS = 10_000
"""Of a prompt, as the server takes it; a longer one is left to the server to refuse."""
_LANGUAGES = {
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CJK": "zh",
    "CYRILLIC": "ru",
    "ARABIC": "ar",
    "DEVANAGARI": "hi",
}
"""Script, as Unicode's names of letters begin -> language. One such letter tells it, the first of these scripts before the others."""
_FURTHER = {
    "GREEK": "el",
    "THAI": "th",
    "HEBREW": "he",
    "ARMENIAN": "hy",
    "GEORGIAN": "ka",
    "ETHIOPIC": "am",
    "BENGALI": "bn",
    "GURMUKHI": "pa",
    "GUJARATI": "gu",
    "ORIYA": "or",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "SINHALA": "si",
    "LAO": "lo",
    "TIBETAN": "bo",
    "MYANMAR": "my",
    "KHMER": "km",
    "MONGOLIAN": "mn",
}
"""The same, where most letters must be other than Latin: English has an α or a Ω here and there."""
UNKNOWN = "und"
"""The code of a language whose script is in neither table."""
_CHOICES = get_args(PromptLanguage)


@dataclass(frozen=True)
class Translation:
    """A prompt as a network is to read it."""

    prompt: str
    language: str
    """Of the prompt that came, by its script, as `detect` tells it: `en` (any in Latin letters), `zh`, `ja`, `th`…"""
    translated: bool = False
    unknown: tuple[str, ...] = ()
    """Words that stayed as they were."""
    warnings: tuple[str, ...] = ()


def detect(prompt: str) -> str:
    """The language of a text by its letters, as an ISO 639 code; `en` where they are Latin, or where there is none.

    Digits, punctuation, emoji and combining marks say nothing; letters of another width or style count as the plain ones.
    """
    scripts: Counter[str] = Counter()
    for letter, times in Counter(unicodedata.normalize("NFKC", prompt[:MAX_CHARACTERS])).items():
        if unicodedata.category(letter) in ("Lu", "Ll", "Lt", "Lo"):
            scripts[unicodedata.name(letter, "").partition(" ")[0]] += times
    if known := next((language for script, language in _LANGUAGES.items() if script in scripts), None):
        return known
    latin = scripts.pop("LATIN", 0)
    if scripts.total() <= latin:
        return "en"
    return _FURTHER.get(scripts.most_common(1)[0][0], UNKNOWN)


def translate(
    prompt: str, prompt_language: str = "auto", translator: Translator | None = None, name: str = "prompt"
) -> Translation:
    """A prompt, with its notation, in English.

    `prompt_language`: `auto` translates what is in another script than the Latin; `en` says that it is English: nothing is translated,
    and a warning tells where it is not; `off` uses it as it is. `translator`: instead of the installed ones. `name`: of the parameter,
    for warnings. Raises `InvalidRequestError` for another `prompt_language`.
    """
    if prompt_language not in _CHOICES:
        raise InvalidRequestError(f"prompt_language: expected one of {', '.join(_CHOICES)}, got {prompt_language!r}")
    language = detect(prompt)
    if language == "en" or prompt_language == "off" or len(prompt) > MAX_CHARACTERS:
        return Translation(prompt, language)
    if prompt_language == "en":
        return Translation(
            prompt, language, warnings=(f"{name}: said to be English, but written in another script ({language})",)
        )
    try:
        english, unknown = (translator or translator_for(language))(prompt, language)
    except FAILED as error:
        return Translation(prompt, language, warnings=(f"{name}: used as it is, not translated: {error}",))
    english = english.strip()
    if not english or len(english) > MAX_CHARACTERS:
        told = f"{name}: used as it is, not translated: expected 1 to {MAX_CHARACTERS} characters, got {len(english)}"
        return Translation(prompt, language, warnings=(told,))
    warnings = (f"{name}: not translated, and left as they are: {', '.join(unknown)}",) if unknown else ()
    return Translation(english, language, True, tuple(unknown), warnings)


@dataclass(frozen=True)
class Spoken:
    """The texts of a call in English, and what `details` and warnings say of that."""

    texts: dict[str, str]
    """Parameter -> English, of those that were translated."""
    details: dict[str, Any]
    """Empty where nothing was translated or told."""
    warnings: tuple[str, ...]


NOTHING_SPOKEN = Spoken({}, {}, ())


def spoken(texts: dict[str, str], prompt_language: str) -> Spoken:
    """All texts of one call. `texts`: parameter -> text, `prompt` among them."""
    found = {name: translate(text, prompt_language, name=name) for name, text in texts.items()}
    english = {name: each.prompt for name, each in found.items() if each.translated}
    warnings = tuple(warning for each in found.values() for warning in each.warnings)
    if not english and not warnings:
        return NOTHING_SPOKEN
    unknown = [word for each in found.values() for word in each.unknown]
    first = next((each for each in found.values() if each.language != "en"), None)
    told = {
        "language": first.language if first else "en",
        "translated": bool(english),
        "original": texts.get("prompt", ""),
        **english,
        "unknown": unknown,
    }
    return Spoken(english, told, warnings)
