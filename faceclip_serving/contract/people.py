"""Several people in one picture: what the parameter `people` says of each of them.

Photographs, sealed identities and masks are files, so they travel beside it, and it names them by their numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .allowed import Allowed, Between, Box, JsonObject, Several, Text, parsed
from .consent import LONGEST_RECORD, ConsentRecord
from .errors import InvalidRequest

MOST_PEOPLE = 4
MAX_WEIGHT = 2.0
_ESCAPED = 12
"""Characters that JSON may take for one of a prompt."""
_PLACES = 10_000
"""Characters for the keys and numbers of a person, many times what they need."""
_EXAMPLE = '[{"faces": [0], "box": [0, 0, 0.5, 1]}, {"faces": [1], "box": [0.5, 0, 1, 1]}]'
_NUMBER = Between(0, 99)
_WHO, _WHERE = ("faces", "identity"), ("box", "mask")
_FILES = {"faces": "face_images", "identity": "identity", "mask": "people_masks"}
"""Keys that name files by their numbers -> the parameter that brings those."""


class _Record(ConsentRecord):
    """A record of consent within other JSON."""

    def read(self, name: str, value: Any) -> dict[str, Any]:
        return self.entries_of(name, value)

    def as_json(self) -> dict[str, Any]:
        return self.entries_as_json()


class People:
    """The text of a JSON list of `Person`s."""

    def __init__(self, most_faces: int, longest_prompt: int) -> None:
        self._most = min(MOST_PEOPLE, most_faces)
        entries: Mapping[str, Allowed] = {
            "faces": Several(_NUMBER, most_faces),
            "identity": _NUMBER,
            "box": Box(),
            "mask": _NUMBER,
            "prompt": Text(longest_prompt, "a woman wearing a red hat"),
            "weight": Between(0.0, MAX_WEIGHT),
            "consent": _Record(),
        }
        longest = _ESCAPED * longest_prompt + LONGEST_RECORD + _PLACES
        self._longest = self._most * longest
        self._person = JsonObject(entries, longest, example=_EXAMPLE[1:40])

    def read(self, name: str, value: Any) -> list[dict[str, Any]] | None:
        """Each person with all keys; what was left out is None, and the weight 1."""
        if not isinstance(value, str):
            raise InvalidRequest(f"{name}: expected JSON, got {repr(value)[:80]}; write e.g. {_EXAMPLE}")
        found = parsed(name, value, self._longest, "list of objects", _EXAMPLE)
        if not isinstance(found, list):
            raise InvalidRequest(f"{name}: expected a JSON list, got {type(found).__name__}; write e.g. {_EXAMPLE}")
        if not 1 <= len(found) <= self._most:
            raise InvalidRequest(f"{name}: expected 1 to {self._most} people, got {len(found)}; leave it out for one person")
        return [self._person_of(f"{name}[{k}]", each) for k, each in enumerate(found)]

    def _person_of(self, name: str, found: Any) -> dict[str, Any]:
        told = self._person.entries_of(name, found)
        for keys in (_WHO, _WHERE):
            given = [key for key in keys if key in told]
            if len(given) != 1:
                got = "both" if given else "neither"
                raise InvalidRequest(f"{name}: {keys[0]}: expected {keys[0]} or {keys[1]}, got {got}; write e.g. {_EXAMPLE}")
        return {**dict.fromkeys(("faces", "identity", "box", "mask", "prompt", "consent")), "weight": 1.0, **told}

    def describe(self) -> str:
        return f"a JSON list of 1 to {self._most} people, at most {self._longest} characters"

    def as_json(self) -> dict[str, Any]:
        return {"max_characters": self._longest, "max_items": self._most, "items": self._person.entries_as_json()}


def check_files_of(people: Sequence[Mapping[str, Any]], counts: Mapping[str, int], most_faces: int) -> None:
    """Whether each file belongs to one person, and each person has theirs. `counts`: of the files of each parameter that came.

    Raises `InvalidRequest`.
    """
    taken: dict[tuple[str, int], int] = {}
    for k, person in enumerate(people):
        for key, parameter in _FILES.items():
            numbers = person[key] if isinstance(person[key], list) else [] if person[key] is None else [person[key]]
            for number in numbers:
                what, count = f"people[{k}]: {key}", counts.get(parameter, 0)
                if number >= count:
                    raise InvalidRequest(f"{what}: expected a number below {count}, of {parameter} that came, got {number}")
                if (other := taken.setdefault((parameter, number), k)) != k or numbers.count(number) > 1:
                    raise InvalidRequest(
                        f"{what}: {parameter}[{number}] is people[{other}]'s already; of a photograph of both send a copy for each,"
                        " and choose by face_index"
                    )
    for parameter in _FILES.values():
        unused = [number for number in range(counts.get(parameter, 0)) if (parameter, number) not in taken]
        if people and unused:
            raise InvalidRequest(f"people: expected each file to be somebody's, got {parameter}[{unused[0]}] that is nobody's")
    _check_counts(bool(people), counts, most_faces)


def _check_counts(several: bool, counts: Mapping[str, int], most_faces: int) -> None:
    photographs, identities = (counts.get(_FILES[key], 0) for key in _WHO)
    if several:
        if photographs + identities > most_faces:
            raise InvalidRequest(
                f"people: at most {most_faces} photographs and identities are used together, got {photographs + identities}; seal each"
                " person's photographs as one identity"
            )
        return
    if counts.get(_FILES["mask"], 0):
        raise InvalidRequest("people_masks: expected none where people does not say whose they are, got some; send people")
    if identities > 1:
        raise InvalidRequest(f"identity: expected one where people does not say who is where, got {identities}; send people")
    if identities and photographs:
        raise InvalidRequest("identity: expected none where face_images come, got both; leave out one of both")
