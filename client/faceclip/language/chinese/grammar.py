"""A Chinese clause in English order: what describes a noun after 的 goes behind it, a place before a verb goes behind that.

Knows kinds of words, not words; a part that fits no pattern keeps its order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .nouns import LIVING, Noun, at_place, owned, place_of, without_article
from .word import NOUNS, Word

_NAMING = (*NOUNS, "foreign", "unknown", "phrase")
_WITHIN = ("in", "on")
_MOST = 80
"""Words of a clause that are read as one; a longer one is read in pieces, so that the time stays linear."""


def english(clause: Sequence[Word]) -> str:
    """The English of a clause."""
    return " ".join(text for at in range(0, len(clause), _MOST) if (text := _Clause([*clause[at : at + _MOST]]).english()))


@dataclass
class _Part:
    """A piece of the sentence: noun, verb, place, time, link or other."""

    kind: str
    text: str
    noun: Noun | None = None


class _Clause:
    def __init__(self, words: list[Word]) -> None:
        self._words = words

    def english(self) -> str:
        parts = self._parts(0, len(self._words), top=True)
        return _arranged(parts)

    def _parts(self, at: int, end: int, top: bool = False) -> list[_Part]:
        parts: list[_Part] = []
        while at < end:
            part, at = self._part(at, end, bool(parts))
            if part is not None:
                parts.append(part)
        return parts

    def _is(self, at: int, end: int, *chinese: str) -> bool:
        return at < end and self._words[at].kind == "particle" and self._words[at].chinese in chinese

    def _kind(self, at: int, end: int) -> str:
        return self._words[at].kind if at < end else ""

    def _part(self, at: int, end: int, later: bool) -> tuple[_Part | None, int]:
        word = self._words[at]
        if word.kind == "particle" and word.chinese != "一" and not self._relative(at, end):
            return self._particle(at, end)
        if word.kind == "verb" and (not self._relative(at, end)):
            return self._verb(at, end)
        if word.kind == "with" and self._relative(at, end) == 0:
            if word.chinese in ("和",) and at + 1 < end:
                return _Part("link", "and"), at + 1
            noun, after = self._noun(at + 1, end)
            return (
                (_Part("place", f"{word.english} {noun.said(True)}"), after) if noun else (_Part("other", word.english), at + 1)
            )
        if word.kind == "adverb" and self._kind(at + 1, end) not in ("adjective",):
            return (_Part("adverb", word.english) if word.english else None), at + 1
        if word.kind == "time" and not self._is(at + 1, end, "的") and self._kind(at + 1, end) not in (*NOUNS, "adjective"):
            return _Part("time", place_of(word)), at + 1
        if word.kind == "adjective" and self._is(at + 1, end, "地"):
            return _Part("adverb", _adverb(word.english)), at + 2
        noun, after = self._noun(at, end)
        if noun is None:
            return (_Part("other", word.english) if word.english else None), at + 1
        return self._with_noun(noun, after, end)

    def _with_noun(self, noun: Noun, at: int, end: int) -> tuple[_Part, int]:
        """A noun phrase, or the place that it is with a localizer, or described by an adjective behind it."""
        if self._kind(at, end) == "localizer":
            return _Part("place", self._located(noun, self._words[at])), at + 1
        if noun.head.kind == "place" and not noun.number:
            return _Part("place", at_place(noun), noun), at
        if noun.head.kind == "time" and not noun.number:
            return _Part("time", f"{noun.head.preposition} {noun.said(True)}".strip(), noun), at
        told: list[str] = []
        after = at
        while self._kind(after, end) in ("adverb", "adjective"):
            if self._words[after].english:
                told.append(self._words[after].before or self._words[after].english)
            after += 1
        if told and after == end and self._words[after - 1].kind == "adjective":
            noun.before[:0] = told
            at = after
        return _Part("noun", "", noun), at

    def _particle(self, at: int, end: int) -> tuple[_Part | None, int]:
        particle = self._words[at].chinese
        if particle in ("在", "于"):
            return self._place_after(at + 1, end)
        if particle in ("与", "及", "并", "而", "且", "和", "跟"):
            return _Part("link", "and"), at + 1
        if particle in ("是", "为"):
            return _Part("is", "is"), at + 1
        if particle == "不":
            return _Part("not", "not"), at + 1
        if particle in ("把", "将"):  # 把头发染成蓝色
            noun, after = self._noun(at + 1, end)
            if noun is not None:
                return _Part("noun", "", without_article(noun)), after
        if particle in ("这", "那"):
            return None, at + 2 if self._kind(at + 1, end) == "classifier" else at + 1
        return None, at + 1

    def _place_after(self, at: int, end: int) -> tuple[_Part | None, int]:
        """What stands after 在."""
        noun, after = self._noun(at, end)
        if noun is None:
            return None, at
        if self._kind(after, end) == "localizer":
            return _Part("place", self._located(noun, self._words[after])), after + 1
        if noun.head.kind in ("place", "time"):
            return _Part("place", at_place(noun)), after
        return _Part("place", f"in {noun.said(True)}"), after

    def _located(self, noun: Noun, localizer: Word) -> str:
        own = noun.head.preposition
        preposition = own if own and localizer.english in _WITHIN else localizer.english
        return f"{preposition} {noun.said(True)}".strip()

    def _verb(self, at: int, end: int) -> tuple[_Part, int]:
        """A verb with its place and object."""
        said = [self._words[at].english]
        at += 1
        while self._is(at, end, "着", "了", "过"):
            at += 1
        if self._is(at, end, "在", "于"):
            place, at = self._place_after(at + 1, end)
            if place is not None:
                said.append(place.text)
        elif self._is(at, end, "得"):
            at += 1
            while self._kind(at, end) in ("adverb", "adjective"):
                word = self._words[at]
                said += [_adverb(word.english) if word.kind == "adjective" else word.english] if word.english else []
                at += 1
        elif (
            self._kind(at, end) in (*_NAMING, "adjective", "number", "age")
            or self._relative(at, end)
            or self._is(at, end, "一")
        ):
            noun, after = self._noun(at, end)
            if noun is not None:
                at = after
                if self._kind(at, end) == "localizer":
                    said.append(self._located(noun, self._words[at]))
                    at += 1
                elif noun.head.kind == "place" and not noun.number and said[0] not in ("with", "without"):
                    said.append(at_place(noun))
                else:
                    said.append(noun.said(True))
                    at = self._and(at, end, said)
            else:
                said.append(self._words[at].english)
                at += 1
        return _Part("verb", " ".join(said)), at

    def _and(self, at: int, end: int, said: list[str]) -> int:
        """Further objects of a verb."""
        while (self._is(at, end, "与", "及", "和") or (at < end and self._words[at].chinese == "和")) and self._kind(
            at + 1, end
        ) != "verb":
            noun, after = self._noun(at + 1, end)
            if noun is None:
                break
            said.append(f"and {noun.said(True)}")
            at = after
        return at

    def _relative(self, at: int, end: int) -> int:
        """Where the 的 is with which a description that begins with this verb, place or preposition ends; 0: it is none."""
        if self._kind(at, end) not in ("verb", "with") and not self._is(at, end, "在", "不"):
            return 0
        plain = 0
        for i in range(at + 1, end):
            if not self._is(i, end, "的") or self._kind(i - 1, end) == "adjective":
                continue
            j = i + 1
            while self._kind(j, end) in ("adjective", "number", "classifier", "age") or (
                self._is(j, end, "的") and self._kind(j - 1, end) == "adjective"
            ):
                j += 1
            if self._kind(j, end) not in NOUNS:
                continue
            while self._kind(j + 1, end) in NOUNS:
                j += 1
            if self._words[j].kind in LIVING and not self._is(j + 1, end, "的"):
                return i
            if not plain and (i == at + 1 or self._words[at].english.startswith(("full of", "hung"))):
                plain = i
        return plain

    def _noun(self, at: int, end: int) -> tuple[Noun | None, int]:
        """The noun that begins here with all that describes it; None: no noun begins here."""
        before: list[str] = []
        after: list[str] = []
        owners: list[Noun] = []
        number = measure = last = ""
        described = False
        start = at
        while at < end:
            word = self._words[at]
            if word.kind == "number" or self._is(at, end, "一"):
                number = "1" if self._is(at, end, "一") else word.english
                at += 1
                if self._kind(at, end) == "classifier":
                    measure = self._words[at].english
                    at += 1
                continue
            if word.kind == "age":
                before.append(word.english)
                last = word.english
                at += 1
                if self._is(at, end, "的"):
                    at, described = at + 1, True
                continue
            if stop := self._relative(at, end):
                parts = self._parts(at, stop)
                if stop == at + 1 and word.kind == "verb":
                    before.append(word.english)
                else:
                    after.append(_arranged(parts))
                at, described = stop + 1, True
                continue
            if word.kind in ("adjective", "adverb") and not self._is(at + 1, end, "地"):
                run = at
                said: list[str] = []
                while self._kind(run, end) == "adverb":
                    said += [self._words[run].english] if self._words[run].english else []
                    run += 1
                if self._kind(run, end) != "adjective":
                    break
                before.append(" ".join([*said, self._words[run].before or self._words[run].english]))
                last = " ".join([*said, self._words[run].english])
                at = run + 1
                if self._is(at, end, "的"):
                    at, described = at + 1, True
                continue
            if word.kind not in _NAMING:
                break
            head, at = self._compound(at, end)
            head.before, before = before + head.before, []
            if self._kind(at, end) == "localizer" and self._is(at + 1, end, "的") and self._begins_noun(at + 2, end):
                after.append(self._located(head, self._words[at]))
                at, described = at + 2, True
                continue
            if self._described(head, at, end, after):
                while not self._is(at, end, "的"):
                    at += 1
                at, described = at + 1, True
                continue
            if self._is(at, end, "的") and self._begins_noun(at + 1, end):
                head.number, number = number, ""
                head.measure, measure = measure, ""
                owners.append(head)
                at, described = at + 1, True
                continue
            head.number, head.measure, head.described = number, measure, described
            head.after = head.after + owned(head, owners) + after
            return head, at
        if owners:
            return owners[-1], at
        if before and not after:
            head = Noun(Word("adjective", last), before[:-1])
            return head, at
        return None, start

    def _described(self, head: Noun, at: int, end: int, after: list[str]) -> bool:
        """表情严肃的男人: a feature, an adjective, 的."""
        if head.head.kind != "feature" or self._kind(at, end) not in ("adjective", "adverb"):
            return False
        told: list[str] = []
        while self._kind(at, end) in ("adjective", "adverb"):
            told += [self._words[at].english] if self._words[at].english else []
            at += 1
        if not self._is(at, end, "的") or not self._begins_noun(at + 1, end):
            return False
        head.before += told
        after.append(f"with {head.said(True)}")
        return True

    def _begins_noun(self, at: int, end: int) -> bool:
        return (
            self._kind(at, end) in (*_NAMING, "adjective", "number", "age", "adverb")
            or bool(self._relative(at, end))
            or self._is(at, end, "一")
        )

    def _compound(self, at: int, end: int) -> tuple[Noun, int]:
        """Nouns that stand side by side; the last is what is meant."""
        stop = at + 1
        while self._kind(stop, end) in _NAMING and self._words[stop].kind != "time":
            stop += 1
        made = Noun(self._words[stop - 1])
        for word in self._words[at : stop - 1]:
            proper = word.kind == "place" and not word.article and not word.before and word.preposition == "in"
            if proper and made.head.kind == "place":
                made.after.append(place_of(word))
            else:
                made.before.append(word.before or word.english)
        return made, stop


def _arranged(parts: list[_Part]) -> str:
    """The parts in English order."""
    alone = all(part.kind in ("noun", "link", "is") or _is_ground(part) for part in parts)
    if len(parts) == 1 and parts[0].kind == "place" and (noun := parts[0].noun) is not None and noun.head.article == "a":
        parts[0].text = noun.said(False)
    for part in parts:
        if part.noun is not None and part.kind == "noun":
            noun = part.noun
            living = noun.head.kind in LIVING
            part.text = noun.said(not alone or (living and (noun.described or bool(noun.after))) or bool(noun.number))
            if alone and not living and not noun.number and noun.head.article == "the" and len(parts) == 1:
                part.text = noun.said(False)
    said: list[str] = []
    waiting: list[str] = []
    late: list[str] = []
    for i, part in enumerate(parts):
        following = parts[i + 1 :]
        if part.kind == "time" and following:
            late.append(part.text)
        elif (part.kind == "place" and following and following[0].kind == "is") or (
            part.kind in ("place", "adverb") and any(each.kind == "verb" for each in following)
        ):
            waiting.append(part.text)
        elif part.kind == "place" and any(each.kind == "noun" for each in following):
            late.append(part.text)
        elif part.kind == "noun" and following and following[0].kind == "is" and _is_ground(part) and part.noun:
            waiting.append(f"in the {part.noun.head.english}")
        elif part.kind == "is" and waiting:
            continue
        elif part.kind == "verb" and part.text.startswith("with ") and waiting and not said and part.text != "with":
            said += [part.text if waiting[0].startswith("on the face") else part.text.removeprefix("with "), *waiting]
            waiting = []
        else:
            said.append(part.text)
            if part.kind in ("verb",):
                said += waiting
                waiting = []
    return " ".join(each for each in [*said, *waiting, *late] if each)


def _is_ground(part: _Part) -> bool:
    """背景, or 远处: what is said to be there."""
    return part.noun is not None and part.noun.head.english in ("background", "foreground", "distance")


def _adverb(adjective: str) -> str:
    if adjective.endswith("ly"):
        return adjective
    if adjective.endswith("y"):
        return f"{adjective[:-1]}ily"
    return f"{adjective[:-1]}y" if adjective.endswith("le") else f"{adjective}ly"
