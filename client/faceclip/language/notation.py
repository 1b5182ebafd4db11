"""The notation of prompts as a tree, so that the words within can be translated and the notation stays: weights, BREAK, escapes.

`(red hat:1.3)`, `(hat)`, `[hat]`, `\\(hat\\)`, `BREAK` and `<lora:x:1>`. What is meant by them the server says; a bracket without its
other half stays where it is, so that the server can refuse it. No bracket is read deeper than `MAX_DEPTH`.

What Chinese input methods write is read too: `（女人：１．２）` is `(女人:1.2)`. Wide brackets without a weight are punctuation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

MAX_DEPTH = 20
_MARK = re.compile(r"\\[()\[\]\\]|[()\[\]（）]|(?<![A-Za-z0-9_])BREAK(?![A-Za-z0-9_])|<\w+:[^<>]+>")
"""BREAK ends at a letter of Chinese, before and after which nobody writes a blank."""
_WEIGHT = re.compile(r"\s*[:：]\s*([+\-＋－]?\d*[.．]?\d+)\s*$")
_CLOSING = {"(": ")）", "[": "]", r"\(": r"\)", r"\[": r"\]", "（": "）)"}
"""Opening -> what may close it."""
_WIDE = "（）"


@dataclass(frozen=True)
class Group:
    """Words in brackets. `closing` has the weight, as in `:1.3)`."""

    opening: str
    parts: tuple[Part, ...]
    closing: str


@dataclass(frozen=True)
class Mark:
    """Notation without words: BREAK, a network, a lone bracket."""

    text: str


Part = str | Group | Mark


def read(prompt: str) -> tuple[Part, ...]:
    """The parts of a prompt, in order; texts are of one character at least."""
    pieces: list[Part] = []
    at = 0
    for found in _MARK.finditer(prompt):
        if found.start() > at:
            pieces.append(prompt[at : found.start()])
        pieces.append(Mark(found[0]))
        at = found.end()
    if prompt[at:]:
        pieces.append(prompt[at:])
    return tuple(_merged(_grouped(pieces)))


def _grouped(pieces: Sequence[Part]) -> list[Part]:
    """With a stack of what is open: a bracket that is closed becomes a group, others stay marks."""
    levels: list[list[Part]] = [[]]
    opened: list[str] = []
    for piece in pieces:
        if isinstance(piece, Mark) and piece.text in _CLOSING and len(opened) < MAX_DEPTH:
            opened.append(piece.text)
            levels.append([])
        elif isinstance(piece, Mark) and opened and _closes(opened[-1], piece.text):
            inner, opening = levels.pop(), opened.pop()
            levels[-1] += _group(opening, _merged(inner), piece.text)
        else:
            levels[-1].append(piece)
    while opened:
        inner, opening = levels.pop(), opened.pop()
        levels[-1] += [Mark(opening), *inner]
    return levels[0]


def _closes(opening: str, text: str) -> bool:
    return text in ((*_CLOSING[opening],) if len(opening) == 1 else (_CLOSING[opening],))


def _group(opening: str, inner: list[Part], closing: str) -> list[Part]:
    """A group; or its parts, where its brackets are punctuation."""
    last = inner[-1] if inner else None
    if opening in "(（" and isinstance(last, str) and (weight := _WEIGHT.search(last)):
        rest = last[: weight.start()]
        number = unicodedata.normalize("NFKC", weight[1])
        return [Group("(", (*inner[:-1], *([rest] if rest else [])), f":{number})")]
    if opening in _WIDE or closing in _WIDE:
        return [Mark(opening), *inner, Mark(closing)]
    return [Group(opening, tuple(inner), closing)]


def _merged(parts: Sequence[Part]) -> list[Part]:
    """Wide brackets that are no notation as the text that they are, together with the text around them."""
    made: list[Part] = []
    for part in parts:
        told = part.text if isinstance(part, Mark) and part.text in _WIDE else part
        if isinstance(told, str) and made and isinstance(made[-1], str):
            made[-1] += told
        else:
            made.append(told)
    return made
