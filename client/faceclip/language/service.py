"""A translator that is a service over HTTP. Apart, since what speaks HTTP takes a while to import."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from .translator import TranslationError, Translator, checked_text

TIMEOUT_S = 5.0
"""Of a whole answer, from the question to its last byte."""
MAX_ANSWER = 65_536
"""Bytes."""


def over_http(url: str, timeout_s: float | None = None) -> Translator:
    """A service that is sent {"prompt", "language"} and answers {"prompt"}, both JSON. It is asked itself, through no proxy of the
    environment, and not followed elsewhere. `timeout_s`: of a whole answer; left out: `TIMEOUT_S`."""
    limit_s = TIMEOUT_S if timeout_s is None else timeout_s

    def ask(prompt: str, language: str) -> tuple[str, Sequence[str]]:
        content = _Exchange(url, json.dumps({"prompt": prompt, "language": language}).encode()).answer(limit_s)
        if len(content) > MAX_ANSWER:
            raise TranslationError(f"{url}: expected at most {MAX_ANSWER} bytes")
        try:
            told = json.loads(content)
        except ValueError:
            told = None
        return checked_text(url, told.get("prompt") if isinstance(told, dict) else None), ()

    return ask


class _Exchange(threading.Thread):
    """One question and its answer. A thread, because limits of a socket are of each read, and a name's look-up has none; whoever waits
    for it waits no longer than the limit, and then cuts its connection, so that it ends too."""

    def __init__(self, url: str, body: bytes) -> None:
        super().__init__(name="translation", daemon=True)
        self._url, self._body = url, body
        self._timeout_s = TIMEOUT_S
        self._socket: socket.socket | None = None
        self._left = False
        self._content = b""
        self._failed: Exception | None = None

    def answer(self, timeout_s: float) -> bytes:
        """At most one byte more than `MAX_ANSWER`. Raises `TranslationError`."""
        self._timeout_s = timeout_s
        self.start()
        self.join(timeout_s)
        if self.is_alive():
            self._left = True
            _cut(self._socket)
            raise TranslationError(f"{self._url}: no answer within {timeout_s:g} s")
        if self._failed is not None:
            raise TranslationError(f"{self._url}: {self._failed}") from self._failed
        return self._content

    def run(self) -> None:
        try:
            self._content = self._exchanged()
        except (OSError, ValueError, HTTPException) as error:
            self._failed = error

    def _exchanged(self) -> bytes:
        at = urlsplit(self._url)
        kind = HTTPSConnection if at.scheme == "https" else HTTPConnection
        connection = kind(at.hostname or "", at.port, timeout=self._timeout_s)
        try:
            connection.connect()
            self._socket = connection.sock
            self._socket.settimeout(None)  # from here on it is cut
            if self._left:  # while it connected
                return b""
            path = f"{at.path or '/'}?{at.query}" if at.query else at.path or "/"
            connection.request("POST", path, self._body, {"Content-Type": "application/json", "Connection": "close"})
            answer = connection.getresponse()
            if not 200 <= answer.status < 300:
                raise ValueError(f"expected an answer with status 200, got {answer.status} {answer.reason}".rstrip())
            return answer.read(MAX_ANSWER + 1)
        finally:
            connection.close()


def _cut(connection: socket.socket | None) -> None:
    """Wakes whoever reads from it. Below TLS, whose own farewell would wait for the other side."""
    if connection is not None:
        with suppress(OSError):  # it has ended by itself
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
