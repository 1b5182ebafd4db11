"""Nouns with what describes them, in English: articles, numbers, and what goes before and behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .word import Word

LIVING = ("person",)
"""Kinds that do things, and have features."""
_NUMBERS = {
    "2": "two",
    "3": "three",
    "4": "four",
    "5": "five",
    "6": "six",
    "7": "seven",
    "8": "eight",
    "9": "nine",
    "10": "ten",
}
_PLURALS = {
    "woman": "women",
    "man": "men",
    "person": "people",
    "child": "children",
    "wolf": "wolves",
    "elf": "elves",
    "knife": "knives",
}
_HAVING = {"he": "his", "she": "her", "I": "my", "they": "their"}


@dataclass
class Noun:
    """A noun with what describes it."""

    head: Word
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    number: str = ""
    measure: str = ""
    described: bool = False
    """By a part with 的."""

    def said(self, article: bool) -> str:
        noun = self.head.english
        words = [*self.before, noun]
        if self.number and self.number != "1":
            words = [_NUMBERS.get(self.number, self.number), *self.before, _plural(self.head)]
        elif self.measure:
            words = [self.measure, *self.before, _plural(self.head)]
        elif self.number and self.head.article:
            words = [_a(words[0]), *words]
        elif article and self.head.article == "the":
            words = ["the", *words]
        elif article and self.head.article:
            words = [_a(words[0]), *words]
        return " ".join([*words, *self.after])


def without_article(noun: Noun) -> Noun:
    """The noun, bare."""
    noun.head = replace(noun.head, article="")
    return noun


def owned(head: Noun, owners: Sequence[Noun]) -> list[str]:
    """What goes behind a noun of all that stood before its 的; the rest is put before it."""
    after: list[str] = []
    for owner in reversed(owners):
        kind = owner.head.kind
        if kind == "time" and not owner.head.before:
            after.append(f"{owner.head.preposition} {owner.said(True)}".strip())
        elif kind == "place" and not owner.head.before and (head.head.kind != "place" or not owner.head.article):
            after.append(at_place(owner))
        elif kind == "feature" and head.head.kind in LIVING:
            after.append(f"with {owner.said(True)}")
        elif kind in LIVING and head.head.kind == "picture":
            after.append(f"of {owner.said(bool(owner.number) or owner.described)}")
            head.number = head.number or owner.number
        elif kind in LIVING and head.head.kind in ("thing", "feature"):
            head.before.insert(0, _HAVING.get(owner.head.english) or f"{owner.said(True)}'s")
        else:
            head.before[:0] = [*owner.before, owner.head.before or owner.head.english]
            head.number, head.measure = head.number or owner.number, head.measure or owner.measure
    return after


def place_of(word: Word) -> str:
    article = {"a": _a(word.english), "the": "the"}.get(word.article, "")
    return " ".join(each for each in (word.preposition, article, word.english) if each)


def at_place(noun: Noun) -> str:
    return (
        f"{noun.head.preposition or 'in'} {noun.said(True)}" if noun.head.preposition or noun.head.article else noun.said(True)
    )


def _a(word: str) -> str:
    bare = word.lstrip("([\\").lower()
    return "an" if bare[:1] in "aeiou" and not bare.startswith(("uni", "eu", "one")) else "a"


def _plural(head: Word) -> str:
    if not head.article:
        return head.english
    first, space, last = head.english.rpartition(" ")
    if last in _PLURALS:
        return f"{first}{space}{_PLURALS[last]}"
    if last.endswith(("s", "x", "sh", "ch")):
        return f"{head.english}es"
    if last.endswith("y") and last[-2:-1] not in "aeiou":
        return f"{head.english[:-1]}ies"
    return f"{head.english}s"
