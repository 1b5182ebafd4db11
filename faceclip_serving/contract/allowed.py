"""What a parameter may be: each kind reads a value or refuses it in words, and tells clients its range."""

from __future__ import annotations

import difflib
import json
import operator
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from .errors import InvalidRequest


class Allowed(Protocol):
    def read(self, name: str, value: Any) -> Any:
        """The value as the request keeps it. Raises `InvalidRequest`, in whose message the parameter is called `name`."""

    def describe(self) -> str:
        """The range in words, for documentation."""

    def as_json(self) -> dict[str, Any]:
        """The range for programs."""


@dataclass(frozen=True)
class Between:
    """A number from `low` to `high`, both included, and a multiple of `multiple`."""

    low: float
    high: float
    multiple: int = 1
    unit: str = ""

    def read(self, name: str, value: Any) -> Any:
        number = isinstance(value, int if isinstance(self.low, int) else int | float) and not isinstance(value, bool)
        # What is not a number is in no range: `nan` compares false.
        if not number or not self.low <= value <= self.high or (self.multiple > 1 and value % self.multiple):
            whole = isinstance(self.low, int) and not isinstance(value, int)
            expected, cure = self._expected("a whole number" if whole else "a value"), self._nearest(value)
            raise InvalidRequest(f"{name}: expected {expected}, got {value}{cure}")
        return value

    def describe(self) -> str:
        return f"{_range(self.low, self.high)}{f' {self.unit}' if self.unit else ''}" + (
            f", multiples of {self.multiple}" if self.multiple > 1 else ""
        )

    def as_json(self) -> dict[str, Any]:
        return {"min": self.low, "max": self.high, **({"multiple": self.multiple} if self.multiple > 1 else {})}

    def _expected(self, kind: str) -> str:
        kind = kind if self.multiple == 1 else f"a multiple of {self.multiple}"
        return f"{kind} from {self.low} to {self.high}{f' {self.unit}' if self.unit else ''}"

    def _nearest(self, value: Any) -> str:
        if isinstance(self.low, int) and isinstance(value, float) and value.is_integer():
            return f"; write {int(value)}"
        if self.multiple == 1 or not isinstance(value, int):
            return ""
        near = min(max(round(value / self.multiple) * self.multiple, self.low), self.high)
        return f"; try {near}"


@dataclass(frozen=True)
class OneOf:
    """One of some names, whatever their case; `spellings`: further spelling, in lower case -> name."""

    names: tuple[str, ...]
    spellings: Mapping[str, str] = field(default_factory=dict)

    def read(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise InvalidRequest(f"{name}: expected one of {', '.join(self.names)}, got {value!r}")
        meant = self.spellings.get(value.lower(), value)
        found = next((known for known in self.names if known.lower() == meant.lower()), None)
        if found is None:
            raise InvalidRequest(f"{name}: expected one of {', '.join(self.names)}, got '{value}'")
        return found

    def describe(self) -> str:
        return ", ".join(f"`{name}`" for name in self.names)

    def as_json(self) -> dict[str, Any]:
        return {"choices": list(self.names)}


@dataclass(frozen=True)
class SomeOf:
    """`all`, `none`, or some of the names with commas between."""

    names: tuple[str, ...]

    def read(self, name: str, value: Any) -> str:
        told = [each.strip().lower() for each in str(value).split(",")]
        if told in (["all"], ["none"]):
            return told[0]
        wrong = [each for each in told if each not in self.names]
        if wrong:
            cure = nearest(wrong[0], self.names)
            raise InvalidRequest(f"{name}: expected all, none, or some of {', '.join(self.names)}, got '{value}'{cure}")
        return ",".join(each for each in self.names if each in told)

    def names_in(self, value: str) -> tuple[str, ...]:
        """The names that a value which was read stands for."""
        return self.names if value == "all" else () if value == "none" else tuple(value.split(","))

    def describe(self) -> str:
        return f"`all`, `none`, or some of {', '.join(f'`{name}`' for name in self.names)}"

    def as_json(self) -> dict[str, Any]:
        return {"some_of": list(self.names)}


@dataclass(frozen=True)
class FileName:
    """A path, made absolute where somebody writes it; or a Python function, `module:function` or `file.py:function`. May be empty."""

    def read(self, name: str, value: Any) -> str:
        text = str(value)
        if "\0" in text:
            raise InvalidRequest(f"{name}: expected a path, got {text!r}")
        where, colon, function = text.rpartition(":")
        if not text or (colon and function.isidentifier() and not where.endswith(".py")):
            return text
        if colon and function.isidentifier():
            return f"{os.path.abspath(os.path.expanduser(where))}:{function}"
        return os.path.abspath(os.path.expanduser(text))

    def describe(self) -> str:
        return "a path"

    def as_json(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Text:
    """UTF-8 text of a limited length; `example`: shown to whoever sends an empty one, where one is needed."""

    longest: int
    example: str = ""

    def read(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise InvalidRequest(f"{name}: expected a text, got {repr(value)[:80]}")
        try:
            value.encode()
        except UnicodeEncodeError as error:  # half of a pair, which JSON can write
            raise InvalidRequest(
                f"{name}: expected text that UTF-8 can carry, got some that it cannot at {error.start}"
            ) from None
        if self.example and not value.strip():
            raise InvalidRequest(f"{name}: a text is required, got nothing; describe the scene, e.g. '{self.example}'")
        check_length(name, value, self.longest)
        return str(value)

    def describe(self) -> str:
        return f"at most {self.longest} characters"

    def as_json(self) -> dict[str, Any]:
        return {"max_characters": self.longest}


@dataclass(frozen=True)
class Matching:
    """A text that a regular expression describes, and `form` in words."""

    pattern: str
    form: str

    def read(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or re.fullmatch(self.pattern, value) is None:
            raise InvalidRequest(f"{name}: expected {self.form}, got {str(value)[:80]!r}")
        return value

    def describe(self) -> str:
        return self.form

    def as_json(self) -> dict[str, Any]:
        return {"pattern": self.pattern}


_RFC_3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})")
"""Python reads more as a time: weeks, hours alone."""


@dataclass(frozen=True)
class Moment:
    """A date and time with its zone, as RFC 3339 writes it. Stays the text that it is."""

    def read(self, name: str, value: Any) -> str:
        try:
            told = _RFC_3339.fullmatch(value) is not None and datetime.fromisoformat(value).tzinfo is not None
        except (TypeError, ValueError):
            told = False
        if not told:
            raise InvalidRequest(f"{name}: expected {self.describe()}, got {str(value)[:80]!r}")
        return str(value)

    def describe(self) -> str:
        return "a time such as 2027-01-31T12:00:00Z"

    def as_json(self) -> dict[str, Any]:
        return {"format": "date-time"}


@dataclass(frozen=True)
class Several:
    """A list of one to `most` of a kind."""

    each: Allowed
    most: int

    def read(self, name: str, value: Any) -> list[Any]:
        if not isinstance(value, list) or not 1 <= len(value) <= self.most:
            got = f"{len(value)} of them" if isinstance(value, list) else repr(value)[:80]
            raise InvalidRequest(f"{name}: expected a list of 1 to {self.most}, got {got}")
        return [self.each.read(f"{name}[{i}]", item) for i, item in enumerate(value)]

    def describe(self) -> str:
        return f"a list of 1 to {self.most}: {self.each.describe()}"

    def as_json(self) -> dict[str, Any]:
        return {"max_items": self.most, "items": self.each.as_json()}


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def read(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise InvalidRequest(f"{name}: expected true or false, got {value!r}")
        return value

    def describe(self) -> str:
        return "true, false"

    def as_json(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class JsonObject:
    """The text of a JSON object with some of the `entries`, each with what it may be."""

    entries: Mapping[str, Allowed]
    longest: int
    """Of the text, in characters."""
    required: tuple[str, ...] = ()
    """Those of the entries that may not be missing."""
    example: str = ""

    def read(self, name: str, value: Any) -> dict[str, Any]:
        return self.entries_of(name, parsed(name, value or "{}", self.longest, "object of plain values", self._example()))

    def entries_of(self, name: str, found: Any) -> dict[str, Any]:
        """The same of what the text says."""
        if not isinstance(found, dict):
            raise InvalidRequest(f"{name}: expected a JSON object, got {type(found).__name__}; write e.g. {self._example()}")
        unknown = [entry for entry in found if entry not in self.entries]
        if unknown:
            cure = nearest(unknown[0], self.entries)
            raise InvalidRequest(f"{name}: expected some of {', '.join(self.entries)}, got {unknown[0]!r}{cure}")
        missing = [entry for entry in self.required if entry not in found]
        if missing:
            raise InvalidRequest(
                f"{name}: expected {', '.join(self.required)}, got no {missing[0]}; write e.g. {self._example()}"
            )
        return {entry: self.entries[entry].read(f"{name}: {entry}", content) for entry, content in found.items()}

    def _example(self) -> str:
        return self.example or json.dumps({next(iter(self.entries)): True})

    def describe(self) -> str:
        return f"a JSON object, at most {self.longest} characters, of " + "; ".join(
            f"`{name}`: {may.describe()}" for name, may in self.entries.items()
        )

    def as_json(self) -> dict[str, Any]:
        return {"max_characters": self.longest, **self.entries_as_json()}

    def entries_as_json(self) -> dict[str, Any]:
        """The same where they are no text of their own."""
        return {"entries": {name: may.as_json() for name, may in self.entries.items()}}


@dataclass(frozen=True)
class Files:
    """At most `most` files together; `what` they are, one and several of them, and what a request without them is."""

    most: int
    what: tuple[str, str] = ("photograph", "photographs")
    without: str = "a picture without a face"

    def read(self, name: str, value: Any) -> Any:
        one, several = self.what
        if len(value) == 0:
            raise InvalidRequest(f"{name}: expected at least one {one}, got an empty list; leave it out for {self.without}")
        if len(value) > self.most:
            raise InvalidRequest(f"{name}: at most {self.most} {several} are used together, got {len(value)}")
        return value

    def describe(self) -> str:
        return f"at most {self.most} files"

    def as_json(self) -> dict[str, Any]:
        return {"max_items": self.most}


@dataclass(frozen=True)
class File:
    """The file of one picture."""

    def read(self, name: str, value: Any) -> Any:
        return value

    def describe(self) -> str:
        return "a file"

    def as_json(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Box:
    """A part of a picture: left, top, right and bottom, as fractions of its sides."""

    def read(self, name: str, value: Any) -> list[float]:
        numbers = _four_numbers(name, value)
        if not all(0.0 <= each <= 1.0 for each in numbers):  # nan is in no range
            got = ", ".join(f"{each:g}" for each in numbers)
            raise InvalidRequest(
                f"{name}: expected fractions of the picture from 0 to 1, got {got}; divide pixels by its sides"
            )
        left, top, right, bottom = numbers
        if left >= right or top >= bottom:
            raise InvalidRequest(
                f"{name}: expected left < right and top < bottom, got {left:g} to {right:g} and {top:g} to {bottom:g}"
            )
        return numbers

    def describe(self) -> str:
        return "left, top, right, bottom from 0 to 1"

    def as_json(self) -> dict[str, Any]:
        return {"count": 4, "items": {"min": 0.0, "max": 1.0}}


@dataclass(frozen=True)
class Boxes:
    """One to `most` of `Box`, whose numbers come one after the other. As the request keeps them: a list for each box."""

    most: int

    def read(self, name: str, value: Any) -> list[list[float]]:
        if not value or len(value) % 4 or len(value) > 4 * self.most:
            raise InvalidRequest(f"{name}: expected four numbers for each of 1 to {self.most} boxes, got {len(value)} numbers")
        return [Box().read(f"{name}[{i}]", value[4 * i : 4 * i + 4]) for i in range(len(value) // 4)]

    def describe(self) -> str:
        return f"1 to {self.most} times {Box().describe()}"

    def as_json(self) -> dict[str, Any]:
        return {"max_items": 4 * self.most, "items": Box().as_json()}


def _four_numbers(name: str, value: Any) -> list[float]:
    """JSON can write anything."""
    if not isinstance(value, list | tuple) or len(value) != 4 or any(isinstance(each, bool) for each in value):
        raise InvalidRequest(f"{name}: expected a list of four numbers, got {repr(value)[:80]}")
    try:
        return [each if isinstance(each, float) else float(operator.index(each)) for each in value]
    except (TypeError, OverflowError):
        raise InvalidRequest(f"{name}: expected a list of four numbers, got {repr(value)[:80]}") from None


def parsed(name: str, text: str, longest: int, what: str, example: str) -> Any:
    """What a JSON text of at most `longest` characters says: 100 MB take 13 s to read. `what` was expected, for messages.

    Raises `InvalidRequest`.
    """
    check_length(name, text, longest)
    try:
        return json.loads(text)
    except RecursionError:
        raise InvalidRequest(f"{name}: expected a JSON {what}, got one nested too deeply; write e.g. {example}") from None
    except ValueError as error:
        raise InvalidRequest(f"{name}: expected JSON, got text that is not ({error}); write e.g. {example}") from None


def check_length(name: str, text: str, longest: int) -> None:
    """Raises `InvalidRequest` where a text has more than `longest` characters."""
    if len(text) > longest:
        raise InvalidRequest(f"{name}: at most {longest} characters are read, got {len(text)}; shorten it")


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, for messages, where one of the `known` names is like `name`; else nothing."""
    plain = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower().replace("-", "_"), plain)
    return f"; did you mean '{plain[close[0]]}'?" if close else ""


def _range(low: float, high: float) -> str:
    if isinstance(high, int) and high.bit_length() > 31 and high.bit_count() == high.bit_length():
        return f"{low} to 2^{high.bit_length()}-1"
    return " to ".join(f"{end:g}" if isinstance(end, float) else str(end) for end in (low, high))
