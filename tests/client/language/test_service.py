"""A translator over HTTP: it is asked itself, its whole answer has one limit, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from faceclip import AsyncFaceCLIPPipeline
from faceclip.language import service, translate
from faceclip.language.apart import apart
from faceclip.language.service import over_http
from faceclip.language.translators import ENVIRONMENT_VARIABLE

from ..triton_double import TritonDouble
from .slow_service import WAYS, slow_service

MANY = 8 * (4 + (os.cpu_count() or 1))
"""More than asyncio has threads for."""


@pytest.mark.parametrize("way", WAYS)
def test_a_whole_answer_has_one_limit_and_then_its_connection_is_cut(way: str) -> None:
    with slow_service(way) as (url, seen):
        done = translate("女人", translator=over_http(url, 1.0))
        assert (done.prompt, done.translated) == ("女人", False)
        assert f"{url}: no answer within 1 s" in done.warnings[0]
        assert seen.left.acquire(timeout=30)


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_no_proxy_of_the_environment_is_told_a_prompt(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    asked: list[str] = []

    class Anybody(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"prompt": f"a woman, by {self.server.server_port}"}).encode())  # type: ignore[attr-defined]

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Anybody) as own, HTTPServer(("127.0.0.1", 0), Anybody) as proxy:
        threads = [Thread(target=each.serve_forever) for each in (own, proxy)]
        for thread in threads:
            thread.start()
        for name in ("no_proxy", "NO_PROXY", "REQUEST_METHOD"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.server_port}")
        try:
            done = translate("女人", translator=over_http(f"http://127.0.0.1:{own.server_port}/translate?a=1"))
        finally:
            for each in (own, proxy):
                each.shutdown()
            for thread in threads:
                thread.join()
    assert (done.prompt, asked) == (f"a woman, by {own.server_port}", ["/translate?a=1"])


async def _until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.02)


def test_calls_that_need_no_translator_do_not_wait_for_those_that_do(
    server: TritonDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(asked: Any) -> None:
        async with asyncio.timeout(60), await AsyncFaceCLIPPipeline.from_pretrained(server.address) as pipe:
            waiting = [asyncio.ensure_future(pipe("女人", seed=i)) for i in range(MANY)]
            await _until(asked)
            assert (await pipe("a woman", seed=1)).images
            assert (await pipe("女人", seed=1, prompt_language="off")).images
            await asyncio.to_thread(lambda: None)
            assert not any(each.done() for each in waiting)
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    monkeypatch.setattr(service, "TIMEOUT_S", 20.0)
    with slow_service() as (url, seen):
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, url)
        asyncio.run(work(lambda: seen.asked >= 4))
        seen.ended.set()


def test_a_translator_of_a_language_does_not_wait_for_that_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in that hangs, here for Japanese."""
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)

    async def work() -> None:
        release = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hang() -> None:
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

        waiting = [asyncio.ensure_future(apart(("女の人",), "auto", hang)) for _ in range(MANY)]
        async with asyncio.timeout(60):
            assert (await apart(("女人",), "auto", translate, "女人")).prompt == "woman"
            assert await apart(("a woman",), "auto", lambda: 1) == 1
        assert not any(each.done() for each in waiting)
        release.set()
        await asyncio.gather(*waiting)

    asyncio.run(work())


def test_who_leaves_before_his_turn_begins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    begun: list[int] = []

    async def work() -> None:
        release = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hang(i: int) -> None:
            begun.append(i)
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

        waiting = [asyncio.ensure_future(apart(("여자",), "auto", hang, i)) for i in range(MANY)]
        await _until(lambda: begun)
        for each in waiting[MANY // 2 :]:
            each.cancel()
        release.set()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(work())
    assert sorted(begun) == [*range(MANY // 2)]
