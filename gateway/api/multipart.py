"""Forms, read from memory: a body is within its limit before it comes here, and nothing of it touches a disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import python_multipart
from python_multipart.exceptions import FormParserError, MultipartParseError

from ..errors import ApiError

_LONGEST_TEXT = 1_000_000
"""Bytes of a part that is no file."""


@dataclass(frozen=True)
class Part:
    name: str
    """Without the brackets that some libraries add to what is repeated."""
    is_file: bool
    content: bytes

    @property
    def text(self) -> str:
        """Raises `ApiError` (400)."""
        if self.is_file:
            raise ApiError(400, f"{self.name}: expected a text, got a file", code="invalid_value", param=self.name)
        if len(self.content) > _LONGEST_TEXT:
            raise ApiError(
                400, f"{self.name}: expected at most {_LONGEST_TEXT} bytes of text", code="invalid_value", param=self.name
            )
        try:
            return self.content.decode()
        except UnicodeDecodeError:
            raise ApiError(
                400, f"{self.name}: expected UTF-8, got other bytes", code="invalid_value", param=self.name
            ) from None


def parts_of(body: bytes, content_type: str, most: int) -> list[Part]:
    """Raises `ApiError` (400) for what is no whole form, (413) for more than `most` parts."""
    boundary = python_multipart.multipart.parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise ApiError(400, "Content-Type: expected multipart/form-data with a boundary, got none", code="invalid_form")
    reading = _Reading(most)
    try:
        parser = python_multipart.MultipartParser(boundary, reading.callbacks(), max_header_count=8, max_header_size=4096)
        parser.write(body)
        parser.finalize()
    except (FormParserError, MultipartParseError, ValueError) as error:
        raise _broken(str(error)) from None
    if not reading.whole:
        raise _broken("it ends before its last boundary")
    return reading.parts


def _broken(why: str) -> ApiError:
    return ApiError(400, f"expected a whole multipart form, got another body ({why})", code="invalid_form")


class _Reading:
    """What the parser's callbacks gather."""

    def __init__(self, most: int) -> None:
        self.parts: list[Part] = []
        self.whole = False
        self._most = most
        self._begin()

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_part_data": lambda data, start, end: self._content.extend(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        if len(self.parts) >= self._most:
            raise ApiError(413, f"the form has more than {self._most} parts; send fewer", code="too_many_parts")
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value, self._content = bytearray(), bytearray(), bytearray()

    def _header(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        told = self._headers.get(b"content-disposition", b"")
        options = python_multipart.multipart.parse_options_header(told)[1]
        name = options.get(b"name", b"").decode("utf-8", "replace").removesuffix("[]")
        if not name:
            raise _broken("a part has no name")
        self.parts.append(Part(name, b"filename" in options, bytes(self._content)))

    def _finish(self) -> None:
        self.whole = True
