"""The words of a clause, and what begins or ends at a place in it. Knows kinds of words, not words."""

from __future__ import annotations

from .nouns import LIVING
from .word import NOUNS, Word

NAMING = (*NOUNS, "foreign", "unknown", "phrase")
"""Kinds of words that can be a noun."""


class Reading:
    """Places are numbers of words; `end` is the one behind the last that is looked at."""

    def __init__(self, words: list[Word]) -> None:
        self._words = words

    def _is(self, at: int, end: int, *chinese: str) -> bool:
        return at < end and self._words[at].kind == "particle" and self._words[at].chinese in chinese

    def _kind(self, at: int, end: int) -> str:
        return self._words[at].kind if at < end else ""

    def _relative(self, at: int, end: int) -> int:
        """Where the 的 is with which a description that begins with this verb, place or preposition ends; 0: it is none."""
        if self._kind(at, end) not in ("verb", "with") and not self._is(at, end, "在", "不", "被"):
            return 0
        plain = 0
        for i in range(at + 1, end):
            if not self._is(i, end, "的") or self._kind(i - 1, end) == "adjective":
                continue
            j = i + 1
            while self._kind(j, end) in ("adjective", "number", "classifier", "age") or (
                self._is(j, end, "的") and self._kind(j - 1, end) == "adjective"
            ):
                j += 1
            if self._kind(j, end) not in NOUNS:
                continue
            while self._kind(j + 1, end) in NOUNS:
                j += 1
            if self._words[j].kind in LIVING and not self._is(j + 1, end, "的"):
                return i
            if not plain and (
                i == at + 1 or self._is(at, end, "被") or self._words[at].english.startswith(("full of", "hung"))
            ):
                plain = i
        return plain

    def _begins_somebody(self, at: int, end: int) -> bool:
        while self._kind(at, end) == "adjective":
            at += 1
        return self._kind(at, end) in LIVING

    def _begins_noun(self, at: int, end: int) -> bool:
        return (
            self._kind(at, end) in (*NAMING, "adjective", "number", "age", "adverb")
            or bool(self._relative(at, end))
            or self._is(at, end, "一")
        )
