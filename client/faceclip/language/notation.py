"""The notation of prompts as a tree, so that the words within can be translated and the notation stays: weights, BREAK, escapes.

`(red hat:1.3)`, `(hat)`, `[hat]`, `\\(hat\\)`, `BREAK` and `<lora:x:1>`. What is meant by them the server says; a bracket without its
other half stays where it is, so that the server can refuse it. No bracket is read deeper than `MAX_DEPTH`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_DEPTH = 20
_MARK = re.compile(r"\\[()\[\]\\]|[()\[\]]|\bBREAK\b|<\w+:[^<>]+>")
_WEIGHT = re.compile(r"\s*[:：]\s*([+-]?\d*\.?\d+)\s*$")
_CLOSING = {"(": ")", "[": "]", r"\(": r"\)", r"\[": r"\]"}


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
    return tuple(_grouped(pieces))


def _grouped(pieces: Sequence[Part]) -> list[Part]:
    """With a stack of what is open: a bracket that is closed becomes a group, others stay marks."""
    levels: list[list[Part]] = [[]]
    opened: list[str] = []
    for piece in pieces:
        if isinstance(piece, Mark) and piece.text in _CLOSING and len(opened) < MAX_DEPTH:
            opened.append(piece.text)
            levels.append([])
        elif isinstance(piece, Mark) and opened and piece.text == _CLOSING[opened[-1]]:
            inner, opening = levels.pop(), opened.pop()
            levels[-1].append(_group(opening, inner, piece.text))
        else:
            levels[-1].append(piece)
    while opened:
        inner, opening = levels.pop(), opened.pop()
        levels[-1] += [Mark(opening), *inner]
    return levels[0]


def _group(opening: str, inner: list[Part], closing: str) -> Group:
    last = inner[-1] if inner else None
    if opening == "(" and isinstance(last, str) and (weight := _WEIGHT.search(last)):
        rest = last[: weight.start()]
        return Group(opening, (*inner[:-1], *([rest] if rest else [])), f":{weight[1]}{closing}")
    return Group(opening, tuple(inner), closing)
