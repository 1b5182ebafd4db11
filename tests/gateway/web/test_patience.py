"""A connection that never says what it wants is ended, and one that does not take its answer; no other is, however slow."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.responses import FileResponse, Response

from gateway.web import patience
from gateway.web.events import EventStream, event
from tests.gateway.jobs.drawn import until

ASKED = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
MANY = 2 * 2**20
"""Bytes that no kernel keeps for a reader whose buffer is small."""


@asynccontextmanager
async def serving(app, protocol=patience.Protocol):
    """Yields the server and its address."""
    server = uvicorn.Server(uvicorn.Config(app, http=protocol, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server, server.servers[0].sockets[0].getsockname()
    finally:
        server.should_exit = True
        await running


async def late(scope, receive, send):
    await asyncio.sleep(0.5)
    await Response(status_code=204)(scope, receive, send)


async def talk(*pieces):
    """What is read in the end, after pieces with half a second between them."""
    async with serving(late) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        read = b""
        for piece in pieces:
            writer.write(piece)
            try:
                async with asyncio.timeout(1):
                    read += await reader.read(4096)
            except TimeoutError:
                read += b"(open)"
        writer.close()
    return read


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(patience, "HEAD_TIMEOUT_S", 0.3)


@pytest.mark.parametrize("pieces", [(b"",), (b"GET / HT",), (ASKED[:-2],)], ids=["nothing", "half a line", "half a head"])
async def test_who_does_not_say_what_he_wants_is_left(short, pieces):
    assert await talk(*pieces) == b""


async def test_an_answer_may_take_longer_and_a_second_request_may_follow(short):
    assert (await talk(ASKED, b"")).count(b"204 No Content") == 1
    assert (await talk(ASKED, ASKED)).count(b"204 No Content") == 2
    assert (await talk(ASKED, ASKED[:5])).endswith(b"\r\n\r\n"), "half a second head is left too"


class App:
    """Answers of each kind. `ended`: of how many the work has ended."""

    def __init__(self, kind, folder):
        self.kind, self.ended = kind, 0
        self.file = folder / "large"
        self.file.write_bytes(bytes(MANY))

    async def __call__(self, scope, receive, send):
        try:
            await {
                "whole": lambda: Response(bytes(MANY)),
                "small, one after another": lambda: Response(bytes(MANY // 400)),
                "file": lambda: FileResponse(self.file),
                "events": lambda: EventStream(endless()),
            }[self.kind]()(scope, receive, send)
        finally:
            self.ended += 1


async def endless():
    while True:
        yield event("progress", {"text": "x" * 10_000})
        await asyncio.sleep(0)


def asking(address, many=1):
    """A connection whose owner takes little by himself."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    reader.connect(address)
    reader.sendall(ASKED * many)
    return reader


@pytest.mark.parametrize("begins", [False, True], ids=["nothing", "a little"])
@pytest.mark.parametrize("kind", ["whole", "small, one after another", "file", "events"])
async def test_who_does_not_take_his_answer_is_left(monkeypatch, tmp_path, kind, begins):
    monkeypatch.setattr(patience, "READER_TIMEOUT_S", 0.3)
    app = App(kind, tmp_path)
    async with serving(app) as (server, address):
        readers = [asking(address, 400 if kind.startswith("small") else 1) for _ in range(3)]
        await until(lambda: are(len(server.server_state.connections) == 3))
        for reader in readers if begins else ():
            await asyncio.to_thread(reader.recv, 8 * 1024)
        await until(lambda: are(not server.server_state.connections and not server.server_state.tasks))
        assert 3 <= app.ended < 100
        for reader in readers:
            reader.close()


async def test_who_takes_his_answer_slowly_gets_all_of_it(tmp_path):
    """He is looked at again and again, and has taken the least that he must, and no more."""
    async with serving(App("whole", tmp_path)) as (server, address):
        reader = asking(address)
        await until(lambda: are(server.server_state.connections))
        (connection,) = server.server_state.connections
        left, read = connection.transport.get_write_buffer_size, 0
        await until(lambda: are(left() > MANY // 2))
        for _ in range(20):
            before = left()
            while before - left() < patience.LEAST_BYTES:
                read += len(await asyncio.to_thread(reader.recv, 4096))
                await asyncio.sleep(0)
            connection._look(before)
        reader.settimeout(60)
        while read < MANY:
            piece = await asyncio.to_thread(reader.recv, 2**20)
            assert piece, f"left after {read} bytes"
            read += len(piece)
        reader.close()


async def are(condition):
    return condition
