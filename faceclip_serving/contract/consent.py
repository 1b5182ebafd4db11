"""The consent of the person in the photographs: a record that travels with a request. What it must be; `audit.consent` checks it."""

from __future__ import annotations

from collections.abc import Mapping

from .allowed import Allowed, Flag, JsonObject, Matching, Moment, Several, Text

CONSENT_MODES = ("off", "record", "require")
"""The setting `consent`: records are not looked at; checked where they come; required wherever somebody is shown."""

SIGNATURE = "signature"
NAME = Matching(r"(?! )[^\x00-\x1f\x7f\ud800-\udfff]{1,128}(?<! )", "1 to 128 characters")
"""Of a record, a person, a purpose."""
MOST_REFERENCES = 256
LONGEST_RECORD = 60_000
"""Of a record's text, in characters: all that it may hold, where every character of a name is written as JSON's escape, twice 6."""

_FIELDS: Mapping[str, Allowed] = {
    "id": NAME,
    "subject": NAME,
    "adult": Flag(),
    "scope": Several(NAME, 16),
    "references": Several(Matching("[0-9a-f]{64}", "64 hexadecimal digits, a photograph's"), MOST_REFERENCES),
    "confirmed_by": NAME,
    "confirmed_how": NAME,
    "given": Moment(),
    "expires": Moment(),
    "text": NAME,
}
"""Of a record, all needed: its own name; the person, by a pseudonym; whether that is an adult; what for; which photographs, as
`References` names them; who has confirmed it and how; from when until when; the version of the text that was agreed to."""


class ConsentRecord(JsonObject):
    """The text of such a record, with or without its signature: base64 of Ed25519's over the canonical JSON of all else."""

    def __init__(self) -> None:
        super().__init__(
            {**_FIELDS, SIGNATURE: Text(128)}, LONGEST_RECORD, tuple(_FIELDS), "what `python -m server consent sign` prints"
        )

    def describe(self) -> str:
        return f"a JSON record, as `python -m server consent sign` makes it, at most {self.longest} characters"
