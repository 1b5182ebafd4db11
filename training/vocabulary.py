"""A byte-level BPE in CLIP's file format (vocab.json and merges.txt), learnt from captions until every known word is one token.

Ids: the 256 byte characters, the same at a word's end, one per merge, then begin and end (the end token has the largest id, which
is how the text tower finds it). Text is lower-cased and split as CLIP does; runtime tokenising is the server's part.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|[^\s\w]+")


def byte_characters() -> list[str]:
    """Byte -> the printable character that stands for it, GPT-2's convention: printable bytes stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    table = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [table[b] for b in range(256)]


def words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())


def learn(texts: Iterable[str], merges: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """At most `merges` merges, most frequent pair first, ties by name. Returns (token -> id, merges in order)."""
    characters = byte_characters()
    counts = Counter(word for text in texts for word in words(text))
    pieces = {word: [characters[b] for b in word.encode()] for word in counts}
    for split in pieces.values():
        split[-1] += _WORD_END
    learnt: list[tuple[str, str]] = []
    while len(learnt) < merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, split in pieces.items():
            for pair in pairwise(split):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        learnt.append(best)
        for split in pieces.values():
            _merge(split, best)
    order = sorted(characters, key=lambda c: characters.index(c) if c not in "!" else -1)
    tokens = [*order, *(c + _WORD_END for c in order), *("".join(pair) for pair in learnt), BEGIN, END]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}, learnt


def _merge(split: list[str], pair: tuple[str, str]) -> None:
    i = 0
    while i < len(split) - 1:
        if (split[i], split[i + 1]) == pair:
            split[i : i + 2] = ["".join(pair)]
        i += 1


def write(folder: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """The two files, as CLIP's tokenizers read them."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(vocabulary, ensure_ascii=False, indent=0)
    (folder / "vocab.json").write_text(text + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
