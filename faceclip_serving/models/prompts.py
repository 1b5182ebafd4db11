"""Prompts to token ids, for any tokenizer in Hugging Face's `tokenizer.json` form.

Knows how words become rows of ids: begin token where there is one, face prefix, words, end token, padding; and where a text that
does not fit into one row is cut. What does not fit into the last is returned, so that a caller can report it; nothing is cut silently.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ..contract.tensors import Array
from ..contract.variants.variant import Tokens
from .notation import Words, as_it_is

_LAST_LATIN = 0x24F
"""End of Unicode's Latin Extended-B block."""
_SENTENCE, _PHRASE, _WORD, _WITHIN = range(4)
"""What ends at a place where a text may be cut: the best first, then within a word."""
_ENDS = {**dict.fromkeys(".!?;。！？；", _SENTENCE), **dict.fromkeys(",:，、：", _PHRASE)}


@dataclass(frozen=True)
class Chunk:
    """One row of token ids, int64 [max_tokens]."""

    ids: Array
    weights: Array
    """Of each token, FP32 [max_tokens]; 1 for all that are no words of the prompt."""
    used: int
    """Tokens of the text itself, without begin and end."""
    begin: int = 0
    end: int = 0
    """From where to where in the prompt's text its words are, in characters."""


@dataclass(frozen=True)
class Encoded:
    """The chunks of one prompt, one unless more are allowed and needed, and what became of its text."""

    chunks: tuple[Chunk, ...]
    dropped: str = ""
    """The tail of the prompt that did not fit; empty if all of it did."""

    def chunk(self, number: int) -> Chunk:
        """The one of that number, or the last: a reader of the whole text has one, where another has several."""
        return self.chunks[min(number, len(self.chunks) - 1)]

    @property
    def ids(self) -> Array:
        """Of the first chunk."""
        return self.chunks[0].ids

    @property
    def used(self) -> int:
        """Tokens of all chunks."""
        return sum(chunk.used for chunk in self.chunks)


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that reads special-token spellings inside a prompt as plain text."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def encode_prompt(tokenizer: Tokenizer, tokens: Tokens, prompt: str, prefixed: bool) -> Encoded:
    """One chunk of a prompt without notation, after the face prefix if `prefixed`."""
    return encode_words(tokenizer, tokens, as_it_is(prompt), prefixed)


def encode_words(tokenizer: Tokenizer, tokens: Tokens, words: Words, prefixed: bool, most: int = 1) -> Encoded:
    """At most `most` chunks, each after the face prefix if `prefixed`.

    The tokens are those of the whole text, so that neither a weight nor a cut changes how a word is read. A token has the weight of its
    last character: in some tokenizers it begins with the space before it.
    """
    prefix = tokens.face_prefix if prefixed else ""
    encoding = tokenizer.encode(prefix + words.text, add_special_tokens=False)
    before = [id for id, (start, _) in zip(encoding.ids, encoding.offsets, strict=True) if start < len(prefix)]
    ids = encoding.ids[len(before) :]
    spans = [(start - len(prefix), end - len(prefix)) for start, end in encoding.offsets[len(before) :]]
    weights = [words.weights[max(end, 1) - 1] for _, end in spans]
    begin = [] if tokens.begin is None else [tokens.begin]
    room = tokens.max_tokens - len(begin) - len(before) - 1
    cuts = _cuts(words, spans, room, most)

    def place(token: int) -> int:
        """Where the text goes on, in characters; before the first token and after the last is what belongs to none."""
        return 0 if token == 0 else spans[token][0] if token < len(spans) else len(words.text)

    def chunk(first: int, last: int) -> Chunk:
        row = [*begin, *before, *ids[first:last], tokens.end]
        padded, of_tokens = np.full(tokens.max_tokens, tokens.padding, np.int64), np.ones(tokens.max_tokens, np.float32)
        padded[: len(row)] = row
        of_tokens[len(row) - 1 - (last - first) : len(row) - 1] = weights[first:last]
        return Chunk(padded, of_tokens, len(before) + last - first, place(first), place(last))

    chunks = tuple(chunk(first, last) for first, last in pairwise(cuts))
    return Encoded(chunks, words.text[place(cuts[-1]) :] if cuts[-1] < len(ids) else "")


def _cuts(words: Words, spans: Sequence[tuple[int, int]], room: int, most: int) -> list[int]:
    """Where chunks of at most `room` tokens begin and end: 0, then the end of each of at most `most`.

    As few as the text needs between its breaks; each is cut at the best end that lets the rest fit, the last of several.
    """
    starts = [start for start, _ in spans]
    forced = sorted(
        {bisect_left(starts, at) for at in words.breaks} - {0, len(spans)}
    )  # the first token that begins there or later
    cuts = [0]
    for end in [*forced, len(spans)]:
        while (len(cuts) == 1 or cuts[-1] < end) and len(cuts) <= most:
            start = cuts[-1]
            last, more = start + room, -(-(end - start) // room) - 1
            if last >= end:
                cuts.append(end)
                break
            if len(cuts) == most:
                cuts.append(last)
                break
            ends = {i: _what_ends(words.text, spans, i) for i in range(max(start + 1, end - more * room), last + 1)}
            if min(ends.values()) == _WITHIN and len(cuts) + more < most:  # one chunk more, rather than half a word
                ends = {i: _what_ends(words.text, spans, i) for i in range(start + 1, last + 1)}
            cuts.append(min(ends, key=lambda i: (ends[i], -i)))
        if len(cuts) > most:
            break
    return cuts


def _what_ends(text: str, spans: Sequence[tuple[int, int]], token: int) -> int:
    """What ends before a token."""
    space = text[spans[token - 1][1] : spans[token][1]]
    space = space[: len(space) - len(space.lstrip())]
    if "\n" in space:
        return _SENTENCE
    last = text[: spans[token][0]].rstrip()[-1:]
    return _ENDS.get(last, _WORD) if space or not last.isascii() else _WITHIN  # 1.5 and 1,000 are one word


def prompt_warnings(name: str, encoded: Encoded, tokens: Tokens, prompt: str) -> list[str]:
    """What the author of parameter `name` should know: what did not fit, other scripts."""
    warnings = []
    if encoded.dropped:
        into = f"{len(encoded.chunks)} chunks of {tokens.max_tokens}" if len(encoded.chunks) > 1 else str(tokens.max_tokens)
        warnings.append(
            f"{name}: only the first {encoded.used} of the prompt's tokens fit into {into}"
            f"{f' of {tokens.reader}' if tokens.reader else ''}; not used: '{encoded.dropped}'"
        )
    letters = [character for character in prompt if character.isalpha()]
    foreign = sum(ord(character) > _LAST_LATIN for character in letters)
    if letters and foreign > len(letters) / 5:
        warnings.append(f"{name}: the text encoder was trained on English; other scripts are hardly understood")
    return warnings
