"""A Chinese clause in English order: what describes a noun after 的 goes behind it, a place before a verb goes behind that.

Knows kinds of words, not words; a part that fits no pattern keeps its order.
"""

from __future__ import annotations

from collections.abc import Sequence

from .nouns import Noun, at_place, owned, place_of, without_article
from .order import Part, adverb, arranged
from .reading import NAMING, Reading
from .word import NOUNS, Word

_WITHIN = ("in", "on")
_DIRECTIONS = ("起", "起来", "出", "出来", "进", "进来", "进去", "过来", "过去", "下来", "下去", "上来", "上去", "回来", "回去")
"""After a verb, and not said in English: 举起, 走出来."""
_MOST = 80
"""Words of a clause that are read as one; a longer one is read in pieces, so that the time stays linear."""


def english(clause: Sequence[Word]) -> str:
    """The English of a clause."""
    return " ".join(text for at in range(0, len(clause), _MOST) if (text := _Clause([*clause[at : at + _MOST]]).english()))


class _Clause(Reading):
    def english(self) -> str:
        parts = self._parts(0, len(self._words), top=True)
        return arranged(parts)

    def _parts(self, at: int, end: int, top: bool = False) -> list[Part]:
        parts: list[Part] = []
        while at < end:
            part, at = self._part(at, end, bool(parts))
            if part is not None:
                parts.append(part)
        return parts

    def _part(self, at: int, end: int, later: bool) -> tuple[Part | None, int]:
        word = self._words[at]
        if word.kind == "particle" and word.chinese != "一" and not self._relative(at, end):
            return self._particle(at, end)
        if word.kind == "verb" and (not self._relative(at, end)):
            return self._verb(at, end)
        if word.kind == "with" and self._relative(at, end) == 0:
            if word.chinese in ("和",) and at + 1 < end:
                return Part("link", "and"), at + 1
            noun, after = self._noun(at + 1, end)
            if noun is None:
                return Part("other", word.english), at + 1
            within = self._kind(after, end) == "localizer"  # 从房子里: the preposition says it already
            return Part("place", f"{word.english} {noun.said(True)}"), after + within
        if word.kind == "adverb" and self._kind(at + 1, end) not in ("adjective",):
            return (Part("adverb", word.english) if word.english else None), at + 1
        if word.kind == "time" and not self._is(at + 1, end, "的") and self._kind(at + 1, end) not in (*NOUNS, "adjective"):
            return Part("time", place_of(word)), at + 1
        if word.kind == "adjective" and self._is(at + 1, end, "地"):
            return Part("adverb", adverb(word.english)), at + 2
        noun, after = self._noun(at, end)
        if noun is None:
            return (Part("other", word.english) if word.english else None), at + 1
        return self._with_noun(noun, after, end)

    def _with_noun(self, noun: Noun, at: int, end: int) -> tuple[Part, int]:
        """A noun phrase, or the place that it is with a localizer, or described by an adjective behind it."""
        if self._kind(at, end) == "localizer":
            return Part("place", self._located(noun, self._words[at])), at + 1
        if noun.head.kind == "place" and not noun.number:
            return Part("place", at_place(noun), noun), at
        if noun.head.kind == "time" and not noun.number:
            return Part("time", f"{noun.head.preposition} {noun.said(True)}".strip(), noun), at
        told: list[str] = []
        after = at
        while self._kind(after, end) in ("adverb", "adjective"):
            if self._words[after].english:
                told.append(self._words[after].before or self._words[after].english)
            after += 1
        if told and after == end and self._words[after - 1].kind == "adjective":
            noun.before[:0] = told
            at = after
        return Part("noun", "", noun), at

    def _particle(self, at: int, end: int) -> tuple[Part | None, int]:
        particle = self._words[at].chinese
        if particle in ("在", "于"):
            return self._place_after(at + 1, end)
        if particle in ("与", "及", "并", "而", "且", "和", "跟"):
            return Part("link", "and"), at + 1
        if particle in ("是", "为"):
            return Part("is", "is"), at + 1
        if particle == "不":
            return Part("not", "not"), at + 1
        if particle == "被" and (done := self._passive(at + 1, end)) is not None:
            return done
        if particle in ("把", "将"):  # 把头发染成蓝色
            noun, after = self._noun(at + 1, end)
            if noun is not None:
                return Part("noun", "", without_article(noun)), after
        if particle in ("这", "那"):
            return None, at + 2 if self._kind(at + 1, end) == "classifier" else at + 1
        return None, at + 1

    def _passive(self, at: int, end: int) -> tuple[Part, int] | None:
        """What stands after 被: by whom, and a verb that has a participle; None: another."""
        by = ""
        if self._kind(at, end) in NAMING:
            noun, at = self._noun(at, end)
            by = "" if noun is None else f" by {noun.said(True)}"
        if self._kind(at, end) != "verb" or not self._words[at].before:
            return None
        participle = self._words[at].before
        at += 1
        while self._is(at, end, "着", "了") or (at < end and self._words[at].chinese in _DIRECTIONS):
            at += 1
        return Part("verb", f"{participle}{by}"), at

    def _place_after(self, at: int, end: int) -> tuple[Part | None, int]:
        """What stands after 在."""
        noun, after = self._noun(at, end)
        if noun is None:
            return None, at
        if self._kind(after, end) == "localizer":
            return Part("place", self._located(noun, self._words[after])), after + 1
        if noun.head.kind in ("place", "time"):
            return Part("place", at_place(noun)), after
        return Part("place", f"in {noun.said(True)}"), after

    def _located(self, noun: Noun, localizer: Word) -> str:
        own = noun.head.preposition
        preposition = own if own and localizer.english in _WITHIN else localizer.english
        return f"{preposition} {noun.said(True)}".strip()

    def _verb(self, at: int, end: int) -> tuple[Part, int]:
        """A verb with its place and object."""
        said = [self._words[at].english]
        at += 1
        while self._is(at, end, "着", "了", "过") or (at < end and self._words[at].chinese in _DIRECTIONS):
            at += 1
        if self._is(at, end, "在", "于"):
            place, at = self._place_after(at + 1, end)
            if place is not None:
                said.append(place.text)
        elif self._is(at, end, "得"):
            at += 1
            while self._kind(at, end) in ("adverb", "adjective"):
                word = self._words[at]
                said += [adverb(word.english) if word.kind == "adjective" else word.english] if word.english else []
                at += 1
        elif (
            self._kind(at, end) in (*NAMING, "adjective", "number", "age") or self._relative(at, end) or self._is(at, end, "一")
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
        return Part("verb", " ".join(said)), at

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
                if stop == at + 1 and word.kind == "verb" and not word.english.startswith(("with ", "without ")):
                    before.append(word.english)
                else:
                    after.append(arranged(parts))
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
            if word.kind not in NAMING:
                break
            head, at = self._compound(at, end)
            if head.head.kind == "feature" and head.head.before and self._begins_somebody(at, end):  # 短发女杀手
                before += [*head.before, head.head.before]
                continue
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

    def _compound(self, at: int, end: int) -> tuple[Noun, int]:
        """Nouns that stand side by side; the last is what is meant."""
        stop = at + 1
        while self._kind(stop, end) in NAMING and self._words[stop].kind != "time":
            stop += 1
        made = Noun(self._words[stop - 1])
        for word in self._words[at : stop - 1]:
            proper = word.kind == "place" and not word.article and not word.before and word.preposition == "in"
            if proper and made.head.kind == "place":
                made.after.append(place_of(word))
            else:
                made.before.append(word.before or word.english)
        return made, stop
