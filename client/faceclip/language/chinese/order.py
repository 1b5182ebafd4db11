"""The parts of a clause in English order: a place before a verb goes behind it, what is said of a background goes before that."""

from __future__ import annotations

from dataclasses import dataclass

from .nouns import LIVING, Noun


@dataclass
class Part:
    """A piece of the sentence: noun, verb, place, time, link or other."""

    kind: str
    text: str
    noun: Noun | None = None


def arranged(parts: list[Part]) -> str:
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


def _is_ground(part: Part) -> bool:
    """背景, or 远处: what is said to be there."""
    return part.noun is not None and part.noun.head.english in ("background", "foreground", "distance")


def adverb(adjective: str) -> str:
    if adjective.endswith("ly"):
        return adjective
    if adjective.endswith("y"):
        return f"{adjective[:-1]}ily"
    return f"{adjective[:-1]}y" if adjective.endswith("le") else f"{adjective}ly"
