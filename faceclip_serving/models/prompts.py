"""Prompts to token ids, for any tokenizer in Hugging Face's `tokenizer.json` form.

Knows how a text becomes a row of ids: begin token where there is one, words, end token, padding, and the face prefix. Text that
does not fit is returned, so that a caller can report it; nothing is cut silently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ..contract.tensors import Array
from ..contract.variants.variant import Tokens

_OTHER_TOOLS = re.compile(r"\([^()]+:\s*-?\d*\.?\d+\s*\)|\({2,}[^()]+\){2,}|\[[^\[\]]+\]|<\w+:[^<>]+>|\bBREAK\b")
"""What other tools read as weights, alternatives, networks to load and ends of a chunk: (red:1.3), ((red)), [red], <lora:x:1>, BREAK."""
_LAST_LATIN = 0x24F
"""End of Unicode's Latin Extended-B block."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of one prompt, int64 [max_tokens], and what became of its text."""

    ids: Array
    used: int
    """Tokens of the text itself, without begin and end."""
    dropped: str
    """The tail of the prompt that did not fit; empty if all of it did."""


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that reads special-token spellings inside a prompt as plain text."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def encode_prompt(tokenizer: Tokenizer, tokens: Tokens, prompt: str, prefixed: bool) -> Encoded:
    """Ids of `prompt`, after the face prefix if `prefixed`."""
    prefix = tokens.face_prefix if prefixed else ""
    encoding = tokenizer.encode(prefix + prompt, add_special_tokens=False)
    begin = [] if tokens.begin is None else [tokens.begin]
    room = tokens.max_tokens - len(begin) - 1
    ids = np.full(tokens.max_tokens, tokens.padding, np.int64)
    kept = encoding.ids[:room]
    ids[: len(begin) + len(kept) + 1] = [*begin, *kept, tokens.end]
    dropped = ""
    if len(encoding.ids) > room:
        start = encoding.offsets[room][0]
        dropped = (prefix + prompt)[start:]
    return Encoded(ids, len(kept), dropped)


def prompt_warnings(name: str, encoded: Encoded, tokens: Tokens, prompt: str) -> list[str]:
    """What the author of parameter `name` should know: what did not fit, the syntax of other tools, other scripts."""
    warnings = []
    if encoded.dropped:
        warnings.append(
            f"{name}: only the first {encoded.used} of the prompt's tokens fit into {tokens.max_tokens}"
            f"{f' of {tokens.reader}' if tokens.reader else ''}; not used: '{encoded.dropped}'"
        )
    if found := _OTHER_TOOLS.search(prompt):
        warnings.append(
            f"{name}: '{found[0]}' is read as plain text: weights in brackets, <lora:…> and BREAK, as other tools have them, are not obeyed"
        )
    letters = [character for character in prompt if character.isalpha()]
    foreign = sum(ord(character) > _LAST_LATIN for character in letters)
    if letters and foreign > len(letters) / 5:
        warnings.append(f"{name}: the text encoder was trained on English; other scripts are hardly understood")
    return warnings
