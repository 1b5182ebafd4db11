"""`--person` of the command: who, where, and what they look like, in one text."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NamedTuple

from .group import Person

FORM = "FILE[,FILE]@LEFT,TOP,RIGHT,BOTTOM[:PROMPT]"
_NUMBER = r"[-+.\deE]+"
_BOX = re.compile(rf"(?P<who>.+?)@(?P<box>{_NUMBER}(?:,{_NUMBER}){{3}})(?::(?P<prompt>.*))?", re.DOTALL)
_MASK = re.compile(r"(?P<who>.+?)@(?P<mask>[^@:]+)(?::(?P<prompt>.*))?", re.DOTALL)
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
    """A `--person`, as argparse reads it."""
    found = _BOX.fullmatch(text) or _MASK.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected {FORM}, got '{text}'; such as anna.jpg@0,0,0.5,1")
    parts = found.groupdict()
    try:
        box = tuple(float(end) for end in parts["box"].split(",")) if "box" in parts else None
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected four numbers after @, got '{parts['box']}'") from None
    mask = Path(parts["mask"]) if "mask" in parts else None
    prompt = parts["prompt"].strip() if parts["prompt"] else None
    return Placed([Path(name) for name in parts["who"].split(",")], box, mask, prompt)
