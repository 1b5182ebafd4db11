"""Streams of events: their readers may be slow, leave, or meet an error; the generator is closed each time."""

import asyncio

import pytest

from gateway.errors import ApiError
from gateway.web import events
from gateway.web.events import EventStream, event


class Reader:
    """A caller of ASGI. `takes`: after so many pieces he takes no more; `leaves`: after so many he has gone."""

    def __init__(self, takes=1000, leaves=1000):
        self.takes, self.leaves = takes, leaves
        self.pieces = []
        self.gone = asyncio.Event()

    async def receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if message["type"] != "http.response.body":
            return
        if len(self.pieces) >= self.takes:
            await asyncio.Event().wait()
        self.pieces.append(message["body"])
        if len(self.pieces) >= self.leaves:
            self.gone.set()

    async def read(self, stream):
        await stream({"type": "http"}, self.receive, self.send)


def endless(closed):
    async def told():
        try:
            number = 0
            while True:
                yield event("progress", {"step": number})
                number += 1
                await asyncio.sleep(0)
        finally:
            closed.append(True)

    return told()


def test_an_event_is_one_whatever_its_text():
    assert event("a", {"text": "one\ntwo\r\n\n"}, id=3) == b'id: 3\nevent: a\ndata: {"text":"one\\ntwo\\r\\n\\n"}\n\n'


def test_whoever_leaves_closes_it():
    closed = []
    asyncio.run(Reader(leaves=3).read(EventStream(endless(closed))))
    assert closed == [True]


def test_a_silent_stream_says_that_it_lives(monkeypatch):
    monkeypatch.setattr(events, "KEEP_ALIVE_S", 0.01)

    async def told():
        await asyncio.sleep(0.1)
        yield event("completed", {})

    async def read():
        reader = Reader()
        await reader.read(EventStream(told()))
        return reader.pieces

    pieces = asyncio.run(read())
    assert pieces[0] == b": alive\n\n" and pieces[-2:] == [event("completed", {}), b""]


@pytest.mark.parametrize(
    "error, code", [(ApiError(503, "gone", code="server_unavailable"), "server_unavailable"), (KeyError("x"), "internal_error")]
)
def test_an_error_in_the_middle_is_an_event(error, code):
    async def told():
        yield event("progress", {})
        raise error

    async def read():
        reader = Reader()
        await reader.read(EventStream(told()))
        return reader.pieces

    pieces = asyncio.run(read())
    assert pieces[1].startswith(b"event: error\n") and code.encode() in pieces[1] and pieces[-1] == b""
