"""A Chinese text in words: where it is parted (jieba), and what each word means (our lexicon, then CC-CEDICT)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from .dictionary import Dictionary, segmenter
from .word import Word, lexicon, noun

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
HAN = re.compile(f"[{_HAN}]")
_PIECE = re.compile(rf"\d+mm镜头|\d+(?:\.\d+)?(?=[岁个位名只])|[{_HAN}]+|[^{_HAN}\s]+")
_DIGITS = {each: i for i, each in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
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


class Words:
    """Chinese in words; 130 MB that take two seconds to load. May be used by several threads. Raises ImportError without its packages."""

    def __init__(self) -> None:
        self._own = dict(lexicon())
        self._mixed = _mixed(self._own)
        self._dictionary = Dictionary()
        self._tokenizer, self._tags = segmenter(self._own, self._dictionary)

    def parted(self, text: str) -> list[Word]:
        """The words of a piece without punctuation."""
        text = self._dictionary.simplified(unicodedata.normalize("NFKC", text))
        found: list[Word] = []
        at = 0
        for mixed in self._mixed.finditer(text):
            found += [*self._between(text[at : mixed.start()]), self._own[mixed[0]]]
            at = mixed.end()
        return list(_numbers([*found, *self._between(text[at:])]))

    def _between(self, text: str) -> Iterator[Word]:
        """The words of a text in which no word has both Chinese and other letters."""
        for piece in _PIECE.findall(text):
            if piece.endswith("mm镜头"):
                yield Word("thing", f"{piece.removesuffix('镜头')} lens", piece)
            elif HAN.match(piece):
                for token in self._tokenizer.cut(piece, HMM=False):
                    yield from self._read(token)
            else:
                yield Word("number" if piece.isdigit() else "foreign", piece, piece)

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
        for is_name, verbs, others in self._dictionary.entries(token):
            if (kind == "verb" and verbs) or (verbs and not others):
                return Word("verb", _ing(verbs[0]), token)
            if not others:
                continue
            if is_name:
                return Word("place", others[0], token, preposition="in") if tag == "ns" else Word("thing", others[0], token)
            if kind in ("adjective", "adverb"):
                return Word(kind, others[0], token)
            bare = (
                others[0].endswith("s") or others[0].startswith(("a ", "an ", "the ")) or bool(_UNCOUNTED.fullmatch(others[0]))
            )
            kind = "person" if len(token) > 1 and token[-1] in _WHOEVER and " " not in others[0] else "thing"
            return noun(kind, others[0] if bare else f"a {others[0]}", token)
        return None

    def _split(self, token: str) -> list[Word]:
        """A word that nobody knows, in words that are known, the longest first; what is left is unknown.

        A single character is read by the dictionary only as the verb of an object: 织毛衣. Else it has too many meanings.
        """
        for length in range(len(token) - 1, 0, -1):
            head = token[:length]
            if head in self._own or (length > 1 and self._looked_up(head) is not None):
                return [*self._read(head), *self._read(token[length:])]
        first, rest = self._looked_up(token[:1]), token[1:]
        if first is not None and first.kind == "verb" and len(rest) > 1 and (rest in self._own or rest in self._dictionary):
            return [first, *self._read(rest)]
        return [Word("unknown", token, token)]


def _mixed(own: Iterable[str]) -> re.Pattern[str]:
    """Our words of Chinese and other letters, such as T恤, the longest first; none begins within a word of such letters."""
    names = sorted((name for name in own if not all(HAN.match(each) for each in name)), key=len, reverse=True)
    cases = [f"(?<![{'A-Z' if name[0].isupper() else 'a-z'}]){re.escape(name)}" for name in names]
    return re.compile("|".join(cases) or r"(?!)")


_WHOEVER = frozenset("员家师手者人生工匠姐兵妹哥爷奶叔婆星侠客")
"""Last characters of words for people, by what they do or are."""
_UNCOUNTED = re.compile(
    r"(?:.* )?(?:air|bamboo|bread|chess|clothing|dust|fog|food|fruit|furniture|glass|grass|hair|ice|light|lightning|makeup|meat|metal|"
    r"milk|mist|moonlight|music|paper|rain|rice|sand|silk|skin|smoke|snow|steam|sunlight|thunder|water|weather|wine|wood|wool|yoga)"
)
"""Meanings that take no article."""
_COUNTED = re.compile(r"([零一二两三四五六七八九十百]+)(\D)(.*)")
_NOTHING = Word("unknown", "")
_PARTICLES = frozenset(
    [
        "的",
        "地",
        "得",
        "了",
        "着",
        "过",
        "在",
        "是",
        "为",
        "把",
        "将",
        "被",
        "岁",
        "与",
        "及",
        "并",
        "而",
        "且",
        "和",
        "跟",
        "不",
        "这",
        "那",
        "所",
        "以",
        "之",
        "一",
        "于",
    ]
)


@cache
def vocabulary() -> Words:
    """The one of this process."""
    return Words()


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
            after = found[at + 1].chinese if at + 1 < len(found) else ""
            if after == "年代" and (decade := _decade(_value(text))):
                yield Word("time", decade, f"{text}年代", article="the", preposition="in", before=decade)
                at += 2
                continue
            age = after in ("岁", "周岁")
            yield Word("age" if age else "number", f"{_value(text)}-year-old" if age else str(_value(text)), text)
            at += 2 if age else 1
            continue
        yield word
        at += 1


def _decade(years: int | str) -> str:
    """`1950s` of 五十 or of 1950; empty: it is none."""
    number = int(years) if str(years).isdecimal() else 0
    if number % 10 or not (10 <= number < 100 or 1000 <= number < 2100):
        return ""
    return f"{number if number >= 1000 else 1900 + number}s"


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
