"""The forms in which a picture may get the words of a prompt, so that the checks judge all of them.

What stands between two words may be cut off, be in another chunk, or have so small a weight that the picture shows none of it. Then it
neither parts the words of a term nor makes a harmless phrase of them. Knows nothing of what words mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from .notation import Words
from .prompts import Encoded


def readings(words: Words, encoded: Iterable[Encoded]) -> list[str]:
    """Texts to judge, each once. `encoded`: the words as each text encoder gets them, with the prefix of a face and without.

    First the whole text. Then what is left after each cut, and each chunk by itself; of both, for each weight that occurs, the words that
    weigh at least as much. No fixed weight is as good as none: 0.5 is little beside 1, and much beside 0.1. A word that is weaker than
    all words of a term cannot hide it, and one that is as strong is in the picture as it would be without notation. Up to 1 what is left
    out is closed up. Above, where nothing is close to absent, what stands apart is read apart.
    """
    places: dict[tuple[int, int], None] = {}
    for each in encoded:
        places[each.chunks[0].begin, each.chunks[-1].end] = None
        places |= dict.fromkeys((chunk.begin, chunk.end) for chunk in each.chunks)
    found = {_key(words.text): words.text}
    for begin, end in places:
        for text in _by_weight(words.text[begin:end], words.weights[begin:end]):
            found.setdefault(_key(text), text)
    return [text for text in found.values() if text.strip()] or [words.text]


def _by_weight(text: str, weights: Sequence[float]) -> Iterator[str]:
    """At most `MAX_WEIGHTS` + 1 different weights are in a prompt, so this is linear in the text's length."""
    for least in sorted(set(weights)):
        pieces = [""]
        marked = zip(text, (weight >= least for weight in weights), strict=True)
        for heard, run in groupby(marked, itemgetter(1)):
            characters = "".join(character for character, _ in run)
            if heard or not any(map(_is_letter, characters)):
                pieces[-1] += characters
            else:
                pieces.append("")
        yield from pieces if least > 1 else ("".join(pieces), " ".join(pieces))


def _is_letter(character: str) -> bool:
    """Or a digit, or of another script: not a space or sign, which part no words."""
    return character.isalnum() or not character.isascii()


def _key(text: str) -> str:
    """The same for texts that differ in spaces alone."""
    return " ".join(text.split())
