"""A word of a sentence, and our lexicon of them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

LEXICON = Path(__file__).with_name("lexicon.toml")
NOUNS = ("person", "thing", "feature", "picture", "place", "time")
_ARTICLE = re.compile(r"(?:(?P<preposition>[a-z][a-z ]*?) )?(?P<article>an?|the) (?P<noun>.+)")


@dataclass(frozen=True)
class Word:
    """A word of a sentence, in English."""

    kind: str
    """person, thing, feature, picture, place, time, adjective, adverb, verb, with, localizer, classifier, phrase, number, age, particle,
    foreign (was no Chinese) or unknown."""
    english: str
    """Without article and preposition."""
    chinese: str = ""
    article: str = ""
    preposition: str = ""
    before: str = ""
    """The form before another noun, where it has one of its own."""


def lexicon() -> Iterator[tuple[str, Word]]:
    """Chinese -> what it is."""
    for kind, told in tomllib.loads(LEXICON.read_text(encoding="utf-8")).items():
        for line in told["words"].strip().splitlines():
            names, _, meaning = line.partition(" = ")
            english, _, before = meaning.partition("; ")
            for name in names.split():
                word = noun(kind, english, name) if kind in NOUNS else Word(kind, english.removesuffix("."), name)
                yield name, replace(word, before=before)


def noun(kind: str, english: str, chinese: str) -> Word:
    """A noun with what stands before it: `on a beach`, `a dress`, `glasses`."""
    if kind not in ("place", "time"):
        article, _, rest = english.partition(" ")
        if article in ("a", "an", "the"):
            return Word(kind, rest, chinese, article="the" if article == "the" else "a")
        return Word(kind, english, chinese)
    if found := _ARTICLE.fullmatch(english):
        article = "the" if found["article"] == "the" else "a"
        return Word(kind, found["noun"], chinese, article=article, preposition=found["preposition"])
    preposition, space, rest = english.partition(" ")
    if space and preposition in ("at", "by", "in", "on", "outside", "under"):
        return Word(kind, rest, chinese, preposition=preposition)
    return Word(kind, english, chinese)
