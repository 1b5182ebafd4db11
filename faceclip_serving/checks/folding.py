"""Text as a reader sees it: spellings that only look different become the same.

Folded are compatibility forms (full width, ligatures, mathematical letters), case, accents, invisible characters, look-alike letters
of other alphabets, digits and signs for letters, and spaces or signs between the letters of a word. What a word means is not known here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice

LONGEST = 20_000
"""Characters that are looked at; some are folded to eighteen. What stands further back no text encoder reads."""

Word = frozenset[str]
"""All spellings that one word of a text may stand for."""

_LATIN = "aabcceeghhijkmnoopqsstuvwxyy"
_ALIKE = "аαьсϲеεԍһніјкмпоορԛѕꜱтυѵԝхуγ"
_ALIKE_TO_LATIN = str.maketrans(_ALIKE, _LATIN)
_LATIN_TO_CYRILLIC = str.maketrans("aceopxykmth", "асеорхукмтн")
_CYRILLIC = re.compile("[\u0400-\u04ff]")
_SIGNS = str.maketrans("0134578@$!|€+", "oieastbasiiet")
"""Digits and signs that stand for letters."""
_ARABIC = str.maketrans({"ى": "ي", "ة": "ه", "ک": "ك", "ی": "ي", "ـ": None, "ँ": "ं", "\u093c": None})
_ARABIC_ARTICLE = re.compile(r"^[وف]?(?:[بكل]?ال|لل|[بكل])?")
_ARABIC_PRONOUN = re.compile(r"(?<=...)(?:ها|هما|هم|هن)$")
"""Of a third person: her, their. `his` is written like the feminine ending."""
_MARKS = re.compile("[\u0300-\u0302\u0304-\u036f\u0610-\u061a\u064b-\u065f\u0670]|(?<![nN])\u0303")
"""Accents of Latin, Greek and Cyrillic, but for the Spanish ñ, which is a letter of its own; vowel signs of Arabic."""
_SIGNS_OF_VOWELS = "\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963"
"""Of Devanagari: marks, and yet parts of words."""
_WORD = re.compile(rf"(?:[^\W\d_]|[{_SIGNS_OF_VOWELS}])+|\d+")
_TERM = re.compile(rf"\{{age\}}|(?:[^\W_]|[{_SIGNS_OF_VOWELS}])+\*?")
_CHUNK = re.compile(r"[^\s'’]+")
_WITHIN = re.compile(rf"(?:(?![{_SIGNS_OF_VOWELS}])[\W\d_])+")
_WEIGHT = re.compile(r":\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)\s*(?=[)\]}>])")
_MOST_MARKS = 30
"""As Unicode's stream-safe format; no language needs so many."""
_LONG_NAME = 6
"""Letters."""
_RUN = re.compile(r"(.)\1{2,}")
_NO_SPACES = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[\U0001f300-\U0001faff]")
"""Scripts that put no spaces between words, and pictures."""


@dataclass(frozen=True)
class Folded:
    """A text in the forms that terms are looked for in."""

    readings: tuple[tuple[Word, ...], ...]
    """Sequences of words: as they stand; with signs for letters read and signs within words left out; with single letters joined; all
    of them with and without what gives words in brackets a weight, as in `(red:1.2)`."""
    unspaced: tuple[str, ...]
    """The whole text, as it stands and without spaces and signs."""


def fold(text: str) -> Folded:
    plain = _plain(text)[:LONGEST]
    forms = dict.fromkeys((plain, _WEIGHT.sub("", plain)))
    readings: list[list[str]] = []
    for words, chunks in map(_words_and_chunks, forms):
        readings += [words, chunks, list(_joined(words)), list(_joined(chunks))]
    distinct = dict.fromkeys(tuple(reading) for reading in readings)
    unspaced = dict.fromkeys([plain, *map(_compact, forms)])
    return Folded(tuple(tuple(map(spellings, reading)) for reading in distinct), tuple(unspaced))


def terms_of_name(name: str) -> list[str]:
    """Somebody's name as terms, folded as texts are: as it stands, with digits and signs read as letters, and in one word.

    Short names have the first alone: `U2` is not every u, and `Li Na` not every Lina.
    """
    plain = _plain(name)
    if is_unspaced(name):
        return [_compact(plain)]
    words, chunks = _words_and_chunks(plain)
    forms = [words, *(form for form in (chunks, ["".join(words)], ["".join(chunks)]) if len("".join(form)) >= _LONG_NAME)]
    return list(dict.fromkeys(" ".join(form) for form in forms if form))


def words_of(term: str) -> list[str]:
    """The words of a term of the lexicon, in the spelling that a text's are folded to; `*` and `{age}` stay."""
    return [each if each == "{age}" else _plain(each) for each in _TERM.findall(term)]


def plain_term(term: str) -> str:
    """A term of a script without spaces, folded; `{age}` stays."""
    return "{age}".join(_plain(each).replace(" ", "") for each in term.split("{age}"))


def is_unspaced(term: str) -> bool:
    """Whether a term is of a script that puts no spaces between words."""
    return _NO_SPACES.search(term) is not None


def spellings(word: str) -> Word:
    """What a folded word may stand for."""
    found = {word, word.translate(_ALIKE_TO_LATIN)}
    if _CYRILLIC.search(word):
        found.add(word.translate(_LATIN_TO_CYRILLIC))  # of a mixed word; a wholly Latin one is not spelled in Cyrillic
    if "\u0600" <= word[0] <= "\u06ff":
        bare = _ARABIC_ARTICLE.sub("", word) or word
        found |= {bare, _ARABIC_PRONOUN.sub("", word), _ARABIC_PRONOUN.sub("", bare)}
    if _RUN.search(word):
        found |= {_RUN.sub(times, each) for each in tuple(found) for times in (r"\1", r"\1\1")}
    return frozenset(found)


def _words_and_chunks(plain: str) -> tuple[list[str], list[str]]:
    """The words of a folded text, and what stands between its spaces, with signs for letters read."""
    chunks = (_WITHIN.sub("", chunk.translate(_SIGNS)) for chunk in _CHUNK.findall(plain))
    return _WORD.findall(plain), [each for each in chunks if each]


def _compact(plain: str) -> str:
    """A folded text without spaces and signs."""
    return "".join(each for each in plain if each.isalnum() or _NO_SPACES.match(each))


def _plain(text: str) -> str:
    """Lower case, one form of each letter, digits as ASCII."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", _without_piles(text)).casefold()
    text = _MARKS.sub("", unicodedata.normalize("NFD", text).replace("\u0655", "").replace("\u0654", ""))
    text = unicodedata.normalize("NFC", text).translate(_ARABIC)
    return "".join(_one(each) for each in text)


def _without_piles(text: str) -> str:
    """At most `_MOST_MARKS` marks on a letter: to put them in order takes a time that is quadratic in their number."""
    runs = groupby(text, _is_mark)
    return "".join(character for marks, run in runs for character in (islice(run, _MOST_MARKS) if marks else run))


@lru_cache(4096)
def _is_mark(character: str) -> bool:
    return unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) != 0


def _one(character: str) -> str:
    if character.isascii():
        return character
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.digit(character))
    return "" if category in ("Cf", "Cc") or "\ufe00" <= character <= "\ufe0f" else character


def _joined(words: list[str]) -> Iterator[str]:
    """The words, with three or more single letters in a row as one."""
    row: list[str] = []
    for word in [*words, ""]:
        if len(word) == 1 and not word.isdigit():
            row.append(word)
            continue
        yield from ["".join(row)] if len(row) > 2 else row
        row = []
        if word:
            yield word
