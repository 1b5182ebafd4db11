"""A translator that is slow holds up nobody who does not need it."""

import asyncio
from contextlib import ExitStack

import httpx
import pytest

from faceclip.language.translators import ENVIRONMENT_VARIABLE
from tests.client.language.slow_service import slow_service
from tests.gateway.running import running

NOBODY = "127.0.0.1:1"
MANY = 60
ASYNCIOS = 32
"""More threads than that asyncio does not have: bodies are read in them."""


@pytest.mark.proof
async def test_others_are_answered_while_it_is_waited_for(tmp_path):
    with ExitStack() as stack:
        gates = []
        for way in ("silent", "body"):
            url, seen = stack.enter_context(slow_service(way))
            gate = stack.enter_context(running(NOBODY, tmp_path / way, environment={ENVIRONMENT_VARIABLE: url}))
            gates.append((gate, seen))
        await asyncio.gather(*(others_are_answered(gate, seen) for gate, seen in gates))


async def others_are_answered(gate, seen):
    async with httpx.AsyncClient(base_url=gate.url, timeout=60, trust_env=False) as http:
        asked = {"json": {"prompt": "海边的女人"}}
        waiting = [asyncio.ensure_future(http.post("/v1/prompts/translate", **asked)) for _ in range(MANY)]
        while seen.asked < 4:
            await asyncio.sleep(0.02)
        assert (await http.post("/v1/images/generations", json={})).status_code == 400
        assert (await http.post("/v1/prompts/translate", json={"prompt": "a cat"})).json()["translated"] is False
        answers = [each.json() for each in await asyncio.gather(*waiting)]
        assert {each["prompt"] for each in answers} == {"海边的女人"}
        assert all("no answer within 5 s" in each["warnings"][0] for each in answers)
        assert seen.most > ASYNCIOS
