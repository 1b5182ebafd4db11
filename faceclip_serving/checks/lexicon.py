"""Which concepts a prompt names. Words and phrases are data, in lexicon.toml."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

from .folding import Folded, Word, fold, is_unspaced, plain_term, words_of

FILE = Path(__file__).with_name("lexicon.toml")
_AGE = "{age}"
_ADULT = 18
_KATAKANA = r"[\u30a1-\u30fa\u30fc]"
_NUMERAL = "[0-9一二三四五六七八九十百]"
_MIN_SPLIT = 5
"""Letters of a word that is recognised when a space splits it in two; shorter ones come about by chance."""


class Span(NamedTuple):
    """A term in a text: its name, and from where to where it goes, in words or characters."""

    name: str
    begin: int
    end: int


class Terms:
    """Finds terms in folded texts. `terms`: (name, term), as the lexicon spells terms; several may have one name.

    `ages`: numbers below 18 in words.
    """

    def __init__(self, terms: Iterable[tuple[str, str]], ages: Sequence[str] = ()) -> None:
        spaced = [each for each in ages if not is_unspaced(each)]
        self._ages = {words_of(each)[0] for each in spaced if " " not in each}
        self._number = (
            f"(?:[1-9]|1[0-7]|{'|'.join(sorted((each for each in ages if is_unspaced(each)), key=len, reverse=True)) or '0'})"
        )
        self._exact: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
        self._stems: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
        self._split: dict[str, set[str]] = defaultdict(set)
        unspaced: dict[str, list[str]] = defaultdict(list)
        for name, term in terms:
            if is_unspaced(term):
                unspaced[name].append(self._pattern(plain_term(term)))
                continue
            for each in (term, *_with_ages(term, spaced)):
                self._add(name, words_of(each))
        self._unspaced = {
            name: re.compile(f"(?=({'|'.join(sorted(patterns, key=len, reverse=True))}))")
            for name, patterns in unspaced.items()
        }
        self._stem_lengths = sorted({len(stem) for stem in self._stems})

    def _add(self, name: str, words: list[str]) -> None:
        if not words:
            return
        index, first = (self._stems, words[0][:-1]) if words[0].endswith("*") else (self._exact, words[0])
        index[first].append((name, words[1:]))
        if len(words) == 1 and len(first) >= _MIN_SPLIT and index is self._exact:
            self._split[first].add(name)

    def found(self, text: Folded, harmless: Terms | None = None) -> set[str]:
        """Names of the terms in a text. `harmless`: phrases in which no term of the same name counts that is not longer than they are."""
        names: set[str] = set()
        for reading in text.readings:
            names |= _counting(self._in(reading), harmless._in(reading) if harmless is not None else ())
        for unspaced in text.unspaced:
            names |= _counting(self._within(unspaced), harmless._within(unspaced) if harmless is not None else ())
        return names

    def _in(self, reading: Sequence[Word]) -> Iterator[Span]:
        """Terms among words."""
        for at in range(len(reading)):
            yield from (Span(name, at, at + length) for name, length in self._at(reading, at))
        for at, (one, other) in enumerate(pairwise(reading)):
            for left in one:
                for right in other:
                    yield from (Span(name, at, at + 2) for name in self._split.get(left + right, ()))

    def _within(self, text: str) -> Iterator[Span]:
        """Terms of scripts without spaces: at each place the longest of each name."""
        if not is_unspaced(text):
            return
        for name, pattern in self._unspaced.items():
            yield from (Span(name, *found.span(1)) for found in pattern.finditer(text))

    def _at(self, reading: Sequence[Word], at: int) -> Iterator[tuple[str, int]]:
        """Terms that begin with this word: name, and how many words they are."""
        word = reading[at]
        candidates = [entry for spelling in word for entry in self._exact.get(spelling, ())]
        candidates += [
            entry
            for spelling in word
            for length in self._stem_lengths
            if length <= len(spelling)
            for entry in self._stems.get(spelling[:length], ())
        ]
        if self._is_age(word):
            candidates += self._exact.get(_AGE, ())
        for name, rest in candidates:
            following = reading[at + 1 : at + 1 + len(rest)]
            if len(following) == len(rest) and all(map(self._is, following, rest)):
                yield name, 1 + len(rest)

    def _is(self, word: Word, wanted: str) -> bool:
        if wanted == _AGE:
            return self._is_age(word)
        if wanted.endswith("*"):
            return any(spelling.startswith(wanted[:-1]) for spelling in word)
        return wanted in word

    def _is_age(self, word: Word) -> bool:
        return any(
            spelling in self._ages or (spelling.isdecimal() and len(spelling) <= 3 and int(spelling) < _ADULT)
            for spelling in word
        )

    def _pattern(self, term: str) -> str:
        """A regular expression: no part of a longer number, and, wholly in katakana or with a Latin letter first, of a longer word."""
        pattern = self._number.join(map(re.escape, term.split(_AGE)))
        if term.startswith(_AGE) or re.match(_NUMERAL, term):
            return f"(?<!{_NUMERAL}){pattern}"
        if re.match("[a-z]", term):
            return f"(?<![a-z]){pattern}"
        return f"(?<!{_KATAKANA}){pattern}(?!{_KATAKANA})" if re.fullmatch(f"{_KATAKANA}+", term) else pattern


class Lexicon:
    """The concepts of prompts. For any thread."""

    def __init__(self, file: Path = FILE) -> None:
        told = _read(file)
        ages = [age for each in told["ages"].values() for age in _terms(each)]
        self._concepts = Terms(_named(told["concepts"]), ages)
        self._harmless = Terms(_named(told["harmless"]), ages)
        self._negative: dict[tuple[str, ...], str] = {}
        for concept, languages in told["negative"].items():
            for each in languages.values():
                self._negative |= {_key(term): concept for term in _terms(each)}

    def concepts_of(self, prompt: str, negative_prompt: str = "") -> set[str]:
        """Names of the concepts that a request asks for: in its prompt, or by their opposite in the negative one."""
        found = self._concepts.found(fold(prompt), self._harmless)
        parts = (_key(part) for part in re.split(r"[,;.，、。；،\n]", negative_prompt))
        return found | {self._negative[part] for part in parts if part in self._negative}


@cache
def lexicon() -> Lexicon:
    """The one that this package carries; made once, by whoever looks at prompts: it takes twenty times as long as `concept_names`."""
    return Lexicon()


@cache
def concept_names() -> tuple[str, ...]:
    """Of the lexicon that this package carries."""
    return tuple(_read(FILE)["concepts"])


def _read(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _counting(found: Iterable[Span], harmless: Iterable[Span]) -> set[str]:
    """Names of what was found and meets no harmless phrase of its name, or is longer than that."""
    longest: dict[tuple[str, int], int] = {}
    for name, begin, end in harmless:
        for at in range(begin, end):
            longest[name, at] = max(longest.get((name, at), 0), end - begin)
    return {
        name
        for name, begin, end in found
        if max((longest.get((name, at), 0) for at in range(begin, end)), default=0) < end - begin
    }


def _with_ages(term: str, ages: Sequence[str]) -> Iterator[str]:
    """A term with ages in words: those of several words, and all where the age and what follows are one word."""
    if _AGE in term:
        glued = re.search(r"\{age\}\w", term) is not None
        yield from (term.replace(_AGE, each) for each in ages if glued or " " in each)


def _named(concepts: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    for name, languages in concepts.items():
        for terms in languages.values():
            yield from ((name, term) for term in _terms(terms))


def _terms(text: str) -> list[str]:
    """Terms with commas between; where words of one stand for each other, a term for each."""
    alternatives = ([word.split("/") for word in term.split()] for term in text.split(","))
    return [" ".join(words).replace("_", " ") for each in alternatives if each for words in product(*each)]


def _key(text: str) -> tuple[str, ...]:
    """A part of a negative prompt, whatever weight and brackets it has."""
    return tuple(words_of(re.sub(r"[\d:.()\[\]{}]+", " ", text).casefold()))
