"""How long a connection may take to say what it wants, and to take what it is told: uvicorn by itself waits without end for both.

All routes are held to it, since it knows nothing of requests: streams, files, and answers that nobody reads any more.
"""

from __future__ import annotations

import asyncio
import socket

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_TIMEOUT_S = 15.0
READER_TIMEOUT_S = 30.0
"""Whoever takes less than `LEAST_BYTES` in so long, and not all that there is, is left."""
LEAST_BYTES = 16 * 1024
UNSENT_BYTES = 128 * 1024
"""What the kernel takes ahead of the reader. By itself it takes megabytes in one piece, and then none for long: he would seem to sleep."""
SPARE = 64
"""Connections beyond `most` that are told so; further ones are closed without a word."""
CROWDED = "crowded"
"""In `state` of a request whose connection is beyond `most`: see `crowd`."""


class Protocol(H11Protocol):
    """HTTP/1.1 that hangs up on whoever connects and sends no whole head in time, or does not take his answer."""

    most: int | None = None
    """Connections at a time; None: no limit."""
    _waiting: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        transport.set_write_buffer_limits(high=0)  # so writing pauses as soon as there is something that was not taken
        beyond = 0 if self.most is None else len(self.connections) - self.most
        if beyond > SPARE:
            transport.abort()
            return
        if beyond > 0:
            self.app_state = {**self.app_state, CROWDED: True}
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._wait_no_more()
        elif self._waiting is None:
            self._wait()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_again()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._look_no_more()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        self._look_no_more()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _look_again(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._writing = self.loop.call_later(READER_TIMEOUT_S, self._look, left)

    def _look(self, before: int) -> None:
        """`before`: bytes that were not taken when it was looked last. Nothing is added while writing pauses."""
        if before - self.transport.get_write_buffer_size() < LEAST_BYTES:
            self.transport.abort()  # to close it would wait for him as well
        else:
            self._look_again()

    def _look_no_more(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None


def protocol(most: int) -> type[Protocol]:
    """Of a server with so many connections at a time."""

    class Counted(Protocol):
        pass

    Counted.most = most
    return Counted
