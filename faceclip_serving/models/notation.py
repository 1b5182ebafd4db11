"""The notation of prompts: weights of words, and where a chunk ends.

`(red hat:1.3)` gives the words a weight, `(hat)` 1.1, `[hat]` 1 / 1.1; a word within several has the product. `\\(` is a bracket
itself. `BREAK` begins a chunk. What is left without all that is the text, which the text encoder reads. Knows nothing of tokens.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import islice

from ..contract.errors import InvalidRequest

MAX_WEIGHT = 5.0
MAX_WEIGHTS = 8
"""Different ones of a prompt: each takes a row of the text encoder for every chunk and face."""
MAX_DEPTH = 20
"""Brackets in one another: more round ones than 16 are above `MAX_WEIGHT`. Each may read what is within it once more."""
USUAL = 1.1
"""Weight of a pair of round brackets without a number; square ones divide by it."""
_CLOSING = {"(": ")", "[": "]"}
_ESCAPED = "()[]\\"
_NUMBER = re.compile(r"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|nan|inf(?:inity)?)", re.IGNORECASE)
_TURN = re.compile(r"\d+(?:\.\d+)?|\.\d+")
"""In square brackets, after a colon: other tools read words that come or go between steps."""
_NETWORK = re.compile(r"<\w+:[^<>]+>")
_BREAK = re.compile(r"\bBREAK\b")
_ROUND = re.compile(r"(?<!\()\(+([^()]+)\)+")
_SQUARE_OR_NETWORK = re.compile(rf"\[[^\[\]]+\]|{_NETWORK.pattern}")
# In none of these can two repetitions that stand side by side match the same characters, and none begins within a run of what it begins
# with: so a text is read in a time that is linear in its length, whatever it holds.


@dataclass(frozen=True)
class Words:
    """A prompt as it is read."""

    text: str
    """Without the notation."""
    weights: tuple[float, ...]
    """Of each character of the text."""
    breaks: tuple[int, ...] = ()
    """Where in the text a chunk begins besides the first."""
    warnings: tuple[str, ...] = ()

    @property
    def weighted(self) -> bool:
        return any(weight != 1.0 for weight in self.weights)


def as_it_is(text: str) -> Words:
    """A prompt without any notation."""
    return Words(text, (1.0,) * len(text))


def read_words(name: str, prompt: str, weighting: bool, chunks: bool) -> Words:
    """Reads the parameter `name`. `weighting`: whether brackets are weights; `chunks`: whether BREAK ends a chunk.

    Raises `InvalidRequest`, whose message names the place.
    """
    warnings = []
    marked = as_it_is(prompt)
    if weighting:
        marked, networks = _Reader(name, prompt).read()
        if networks:
            warnings.append(
                f"{name}: '{networks[0]}' is no part of a prompt and was left out; a LoRA is fused when a model is exported, by the"
                " option --lora"
            )
    elif found := _of_others(prompt):
        warnings.append(f"{name}: '{found}' is read as plain text, since prompt_weighting is off")
    if _BREAK.search(marked.text):
        if chunks:
            return _broken(marked, warnings)
        warnings.append(f"{name}: 'BREAK' is read as plain text: here a prompt is read in one piece")
    return Words(marked.text, marked.weights, (), tuple(warnings))


class _Reader:
    """Reads brackets from left to right, with a stack of those that are open."""

    def __init__(self, name: str, prompt: str) -> None:
        self._name, self._prompt = name, prompt
        self._text: list[str] = []
        self._weights: list[float] = []
        self._open: list[tuple[int, int]] = []
        """Of each open bracket: its place in the prompt, and in the text."""

    def read(self) -> tuple[Words, list[str]]:
        """The text with its weights, and the networks that were asked for."""
        networks: list[str] = []
        i = 0
        while i < len(self._prompt):
            character = self._prompt[i]
            if character == "\\" and self._prompt[i + 1 : i + 2] and self._prompt[i + 1] in _ESCAPED:
                self._add(self._prompt[i + 1])
                i += 2
                continue
            if found := _NETWORK.match(self._prompt, i):
                networks.append(found[0])
                i = found.end()
                continue
            if character in _CLOSING:
                self._open.append((i, len(self._text)))
                if len(self._open) > MAX_DEPTH:
                    self._refuse_bracket(i, f"at most {MAX_DEPTH} brackets in one another", "one more")
            elif character in _CLOSING.values():
                self._close(i)
            else:
                self._add(character)
            i += 1
        if self._open:
            self._refuse_bracket(self._open[-1][0], f"a '{_CLOSING[self._prompt[self._open[-1][0]]]}' for it")
        for i, weight in enumerate(self._weights):
            self._require(weight, i)
        different = {each for each in self._weights if each != 1.0}
        if len(different) > MAX_WEIGHTS:
            raise InvalidRequest(
                f"{self._name}: expected at most {MAX_WEIGHTS} different weights besides 1, got {len(different)}; give some words the same"
            )
        return Words("".join(self._text), tuple(self._weights)), networks

    def _add(self, character: str) -> None:
        self._text.append(character)
        self._weights.append(1.0)

    def _close(self, place: int) -> None:
        if not self._open or _CLOSING[self._prompt[self._open[-1][0]]] != self._prompt[place]:
            self._refuse_bracket(place, "its opening bracket before it")
        opened, start = self._open.pop()
        inner = "".join(self._text[start:])
        before, colon, last = inner.rpartition(":")
        last = last.strip()
        if self._prompt[place] == "]":
            if "|" in inner or (colon and _TURN.fullmatch(last)):
                raise InvalidRequest(
                    f"{self._name}: expected words in [ ], which lower their weight, got '{self._shown(opened, place)}' at character"
                    f" {opened + 1}; words that change between steps are not known here, and a weight is written (hat:0.8)"
                )
            weight = 1 / USUAL
        elif colon and _NUMBER.fullmatch(last):
            weight = float(last)
            if not 0.0 <= weight <= MAX_WEIGHT:  # nan is in no range
                raise self._beyond(_short(last), self._shown(opened, place), opened)
            del self._text[start + len(before) :], self._weights[start + len(before) :]
        else:
            weight = USUAL
        self._weights[start:] = [each * weight for each in self._weights[start:]]

    def _require(self, weight: float, place: int) -> None:
        """Of brackets in brackets the product may be too large, and of square ones it is never below 0."""
        if not weight <= MAX_WEIGHT or math.isnan(weight):
            raise self._beyond(f"{weight:.3g}", "".join(self._text[place : place + 20]), None)

    def _beyond(self, got: str, shown: str, place: int | None) -> InvalidRequest:
        where = "" if place is None else f" at character {place + 1}"
        return InvalidRequest(
            f"{self._name}: expected weights from 0 to {MAX_WEIGHT:g}, got {got}{where}: '{shown}'; 1 changes nothing, what a picture"
            " should not show belongs in negative_prompt, and a bracket itself is written \\("
        )

    def _refuse_bracket(self, place: int, expected: str, got: str = "alone") -> None:
        raise InvalidRequest(
            f"{self._name}: expected {expected}, got '{self._prompt[place]}' {got} at character {place + 1}; for a bracket itself write"
            f" \\{self._prompt[place]}, or send prompt_weighting=false"
        )

    def _shown(self, first: int, last: int) -> str:
        return _short(self._prompt[first : last + 1])


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:30]}…{text[-29:]}"


def _of_others(prompt: str) -> str:
    """The first notation where none is read: (red:1.3), ((red)), [red], <lora:x:1>; empty without any. One bracket may be plain English."""
    found = [each for each in [_SQUARE_OR_NETWORK.search(prompt)] if each]
    found += islice(filter(_is_weight, _ROUND.finditer(prompt)), 1)
    return _short(min(found, key=re.Match.start)[0]) if found else ""


def _is_weight(brackets: re.Match[str]) -> bool:
    _, colon, last = brackets[1].rpartition(":")
    doubled = brackets[0].startswith("((") and brackets[0].endswith("))")
    return doubled or bool(colon and _TURN.fullmatch(last.strip().removeprefix("-")))


def _broken(words: Words, warnings: list[str]) -> Words:
    """The text in parts, each without spaces at its ends, with one space between; parts without words are none."""
    texts: list[str] = []
    weights: list[float] = []
    breaks: list[int] = []
    start = 0
    for end, after in [*((found.start(), found.end()) for found in _BREAK.finditer(words.text)), (len(words.text),) * 2]:
        part = words.text[start:end]
        left = start + len(part) - len(part.lstrip())
        part = part.strip()
        if part:
            if texts:
                weights.append(1.0)
                breaks.append(len(weights))
            texts.append(part)
            weights += words.weights[left : left + len(part)]
        start = after
    return Words(" ".join(texts), tuple(weights), tuple(breaks), tuple(warnings))
