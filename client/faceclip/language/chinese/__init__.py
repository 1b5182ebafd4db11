"""Chinese prompts in English, by a dictionary and rules: nothing is asked of anybody, and nothing is learnt."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..notation import Group, Mark, Part, read
from .grammar import english
from .word import NOUNS, Word
from .words import HAN, vocabulary

_STOP = re.compile(r"\s*[，。、；！？,;!?\n|（）()：:“”\"「」《》—…·]+\s*|(?<=[㐀-鿿])\s+(?=[㐀-鿿])")


def translate(prompt: str) -> tuple[str, tuple[str, ...]]:
    """The English of a prompt in simplified or traditional Chinese, with its notation, and the words that nobody knows, which stay.

    Raises ImportError where the packages of the extra `chinese` are missing.
    """
    vocabulary()
    unknown: list[str] = []
    text = _sequence(read(prompt), unknown)
    return text, tuple(dict.fromkeys(unknown))


def _sequence(parts: Sequence[Part], unknown: list[str]) -> str:
    """Clauses, and what stands between them."""
    said: list[str] = []
    clause: list[Word] = []

    def end_clause() -> None:
        if clause:
            said.append(english(clause))
            unknown.extend(word.chinese for word in clause if word.kind == "unknown")
            clause.clear()

    for part in parts:
        if isinstance(part, Mark):
            end_clause()
            said.append(part.text)
        elif isinstance(part, Group):
            inner: list[str] = []
            word = _word(part, inner)
            unknown += inner
            clause.append(word)
        else:
            at = 0
            for stop in _STOP.finditer(part):
                clause += _parted(part[at : stop.start()])
                end_clause()
                said.append(",")
                at = stop.end()
            clause += _parted(part[at:])
    end_clause()
    return _joined(said)


def _parted(text: str) -> list[Word]:
    if not text.strip():
        return []
    return vocabulary().parted(text) if HAN.search(text) else [Word("foreign", text.strip(), text)]


def _word(group: Group, unknown: list[str]) -> Word:
    """Words in brackets as one word, of the kind that they are."""
    text = _sequence(group.parts, unknown)
    kind, article, preposition = "phrase", "", ""
    only = group.parts[0] if len(group.parts) == 1 else None
    if isinstance(only, str) and not _STOP.search(only.strip()) and (found := _parted(only)):
        last = found[-1]
        plain = all(each.kind in ("adjective", *NOUNS) for each in found)
        if plain and last.kind in ("adjective", *NOUNS):
            kind, article = last.kind, last.article
            text = text.removeprefix(f"{last.preposition} {'an' if article == 'a' else article} ") if last.preposition else text
            if last.preposition and text.startswith(f"{last.preposition} "):
                text = text.removeprefix(f"{last.preposition} ").removeprefix("a ").removeprefix("the ")
            preposition = last.preposition
    return Word(kind, f"{group.opening}{text}{group.closing}", "", article=article, preposition=preposition)


def _joined(said: Sequence[str]) -> str:
    text = ""
    for each in said:
        text += each if each == "," or not text else f" {each}"
    text = re.sub(r"(?:\s*,)+", ",", text)
    return re.sub(r"^[,\s]+|[,\s]+$", "", text)
