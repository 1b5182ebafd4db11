"""A connection that never says what it wants is ended; one that does is not, whatever it does between two requests."""

import asyncio

import pytest
import uvicorn

from gateway.web import patience

ASKED = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await asyncio.sleep(0.5)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def talk(monkeypatch, *pieces):
    """What is read in the end, after pieces with half a second between them."""
    monkeypatch.setattr(patience, "HEAD_TIMEOUT_S", 0.3)

    async def run():
        server = uvicorn.Server(uvicorn.Config(app, http=patience.Protocol, port=0, log_level="error", lifespan="off"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        read = b""
        for piece in pieces:
            writer.write(piece)
            try:
                async with asyncio.timeout(1):
                    read += await reader.read(4096)
            except TimeoutError:
                read += b"(open)"
        writer.close()
        server.should_exit = True
        await serving
        return read

    return asyncio.run(run())


@pytest.mark.parametrize("pieces", [(b"",), (b"GET / HT",), (ASKED[:-2],)], ids=["nothing", "half a line", "half a head"])
def test_who_does_not_say_what_he_wants_is_left(monkeypatch, pieces):
    assert talk(monkeypatch, *pieces) == b""


def test_an_answer_may_take_longer_and_a_second_request_may_follow(monkeypatch):
    assert talk(monkeypatch, ASKED, b"").count(b"204 No Content") == 1
    assert talk(monkeypatch, ASKED, ASKED).count(b"204 No Content") == 2
    assert talk(monkeypatch, ASKED, ASKED[:5]).endswith(b"\r\n\r\n"), "half a second head is left too"
