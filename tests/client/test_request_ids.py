"""The name of a call, by which it is found in the server's log, and ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from faceclip import AsyncFaceCLIPPipeline, FaceCLIPPipeline, InvalidRequestError, ServerError

from .triton_double import TritonDouble


def test_every_call_has_an_id_of_its_own_that_nobody_guesses(pipe: FaceCLIPPipeline, server: TritonDouble) -> None:
    pipe("a lighthouse")
    list(pipe.stream("a lighthouse"))
    assert len(set(server.ids)) == 2 and all(len(each) == 32 for each in server.ids)


def test_a_call_may_be_named_and_its_repeats_bear_the_name_too(pipe: FaceCLIPPipeline, server: TritonDouble) -> None:
    server.busy_calls = 1
    pipe("a lighthouse", request_id="mine", retries=2)
    list(pipe.stream("a lighthouse", request_id="mine too"))
    assert server.ids == ["mine", "mine", "mine too"]


def test_an_error_bears_the_id(pipe: FaceCLIPPipeline) -> None:
    for call in (lambda: pipe("crash", request_id="r1"), lambda: list(pipe.stream("crash between steps", request_id="r1"))):
        with pytest.raises(ServerError) as caught:
            call()
        assert caught.value.request_id == "r1"
        assert "request id" not in str(caught.value), "the words are the model's"
    with pytest.raises(InvalidRequestError) as refused:
        pipe("a lighthouse", output_type="jpeg")  # type: ignore[arg-type]
    assert refused.value.request_id == "", "nothing was sent"


@pytest.mark.parametrize("bad", ["", "a" * 129, "zwölf", "a\nb", "\x00"])
def test_an_id_that_a_log_could_not_hold_is_refused(pipe: FaceCLIPPipeline, bad: str) -> None:
    for call in (lambda: pipe("a lighthouse", request_id=bad), lambda: pipe.cancel(bad)):
        with pytest.raises(InvalidRequestError, match="request_id: expected 1 to 128 printable ASCII"):
            call()


def test_an_id_is_a_text(pipe: FaceCLIPPipeline) -> None:
    with pytest.raises(TypeError, match="request_id: expected a text, got int"):
        pipe("a lighthouse", request_id=3)  # type: ignore[arg-type]


def test_a_call_is_ended_by_its_id(pipe: FaceCLIPPipeline) -> None:
    pipe("a lighthouse", request_id="mine")
    assert pipe.cancel("mine") and not pipe.cancel("unknown")


def test_the_same_for_asyncio(server: TritonDouble) -> None:
    async def calls() -> Any:
        async with await AsyncFaceCLIPPipeline.from_pretrained(server.address) as pipe:
            await pipe("a lighthouse", request_id="r1")
            [_ async for _ in pipe.stream("a lighthouse", request_id="r2")]
            for failing in ("crash", "crash between steps"):
                with pytest.raises(ServerError) as caught:
                    [_ async for _ in pipe.stream(failing, request_id="r3")]
                assert caught.value.request_id == "r3"
            return await pipe.cancel("r1"), await pipe.cancel("unknown")

    assert asyncio.run(calls()) == (True, False)
    assert server.ids[:2] == ["r1", "r2"]
