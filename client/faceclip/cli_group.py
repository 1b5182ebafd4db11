"""`--person` of the command: who, where, and what they look like, in one text."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NamedTuple

from .group import Person

FORM = "FILE[,FILE]@LEFT,TOP,RIGHT,BOTTOM[:PROMPT]"
HELP = f"{FORM}, with a mask's file in the place of the four numbers, and \\, for a comma in a file's name"
"""The form, for messages."""
_PERSON = re.compile(r"(?P<who>.+?)@(?P<place>[^@:]+)(?::(?P<prompt>.*))?", re.DOTALL)
_NUMBERS = re.compile(r"(?=.*\d)[-+.\deE,\s]+")
"""A place like this is a box, or was to be one; a mask of such a name is written ./0.5"""
_SEALED = b"\x89faceid\n"


class Placed(NamedTuple):
    """One `--person`."""

    files: list[Path]
    box: tuple[float, ...] | None
    mask: Path | None
    prompt: str | None

    def person(self) -> Person:
        """What a call takes. Raises `OSError` where a file cannot be read."""
        first = self.files[0]
        with first.open("rb") as file:
            sealed = len(self.files) == 1 and file.read(len(_SEALED)) == _SEALED
        who = {"identity": first} if sealed else {"images": self.files}
        return Person(**who, box=self.box, mask=self.mask, prompt=self.prompt)


def placed(text: str) -> Placed:
    """A `--person`, as argparse reads it. Spaces about its parts do not count."""
    found = _PERSON.fullmatch(text)
    names = re.split(r"(?<!\\),", found["who"]) if found else []
    files = [name.strip().replace("\\,", ",") for name in names]
    place = found["place"].strip() if found else ""
    if found is None or not place or not all(files):
        raise argparse.ArgumentTypeError(f"expected {HELP}, got '{text}'; such as anna.jpg@0,0,0.5,1")
    box = _box(place) if _NUMBERS.fullmatch(place) else None
    mask = Path(place.replace("\\,", ",")) if box is None else None
    prompt = found["prompt"].strip() if found["prompt"] else None
    return Placed([Path(name) for name in files], box, mask, prompt)


def _box(place: str) -> tuple[float, ...]:
    try:
        box = tuple(float(end) for end in re.split(r"\s*,\s*|\s+", place))
    except ValueError:
        box = ()
    if len(box) != 4:
        raise argparse.ArgumentTypeError(f"expected four numbers after @, got '{place}'; write {HELP}")
    return box
