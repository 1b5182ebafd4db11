"""The asyncio pipeline, over real gRPC."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import grpc
import numpy as np
import pytest

from faceclip import (
    AsyncFaceCLIPPipeline,
    DeadlineExceededError,
    FaceCLIPOutput,
    FaceCLIPPipeline,
    InvalidRequestError,
    ModelNotFoundError,
    Progress,
    ProtocolError,
    ServerBusyError,
)

from .triton_double import VARIANT, TritonDouble


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    async def in_time() -> Any:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(in_time())


def test_the_same_pictures_as_from_the_blocking_form(server: TritonDouble, pipe: FaceCLIPPipeline, photo: bytes) -> None:
    async def work() -> list[FaceCLIPOutput]:
        async with await AsyncFaceCLIPPipeline.from_pretrained(server.address) as client:
            assert client.defaults == pipe.defaults
            return await asyncio.gather(*(client("a lighthouse", face_image=photo, seed=seed) for seed in range(4)))

    for seed, result in enumerate(_run(work())):
        expected = pipe("a lighthouse", face_image=photo, seed=seed)
        np.testing.assert_array_equal(np.asarray(result.images[0]), np.asarray(expected.images[0]))
        assert result.provenance == expected.provenance


def test_a_picture_is_changed_by_both_forms(server: TritonDouble, pipe: FaceCLIPPipeline, photo: bytes) -> None:
    async def changed() -> None:
        async with await AsyncFaceCLIPPipeline.from_pretrained(server.address) as remote:
            await remote.edit(photo, "a clown", mask="face")

    asyncio.run(changed())
    pipe.edit(photo, "a clown", mask="face")
    assert [(each["image"][0], each["mask"][0], each["prompt"][0]) for each in server.received] == [
        (photo, b"face", b"a clown")
    ] * 2


def test_lookup_by_variant_and_its_failures(server: TritonDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACECLIP_URL", server.address)

    async def work() -> None:
        async with await AsyncFaceCLIPPipeline.from_pretrained(VARIANT.name) as client:
            assert client.config.model == "faceclip"
        with pytest.raises(ModelNotFoundError, match="no variant 'flux'"):
            await AsyncFaceCLIPPipeline.from_pretrained("flux")

    _run(work())


def test_errors_limits_and_retries(server: TritonDouble) -> None:
    async def work() -> None:
        async with await AsyncFaceCLIPPipeline.from_pretrained(server.address) as client:
            with pytest.raises(InvalidRequestError, match=r"^height: ") as raised:
                await client("a lighthouse", height=7)
            assert isinstance(raised.value.__cause__, grpc.RpcError)
            with pytest.raises(TypeError, match="num_inference_steps"):
                await client("a lighthouse", num_inference_step=1)  # type: ignore[call-arg]
            with pytest.raises(DeadlineExceededError):
                await client("slow", timeout_s=0.3)
            server.busy_calls = 1
            with pytest.raises(ServerBusyError):
                await client("a lighthouse")
            server.busy_calls = 1
            assert (await client("a lighthouse", retries=1)).images
            server.busy_calls = 1
            assert [event async for event in client.stream("a lighthouse", retries=1)]
            with pytest.raises(ProtocolError):
                await client("half an answer", callback_on_step_end=print)

    _run(work())


def test_a_second_event_loop_is_told(server: TritonDouble) -> None:
    client = asyncio.run(AsyncFaceCLIPPipeline.from_pretrained(server.address))

    async def call() -> None:
        await client("a lighthouse")

    async def stream() -> None:
        async for _ in client.stream("a lighthouse"):
            pass

    for work in (call, stream):
        with pytest.raises(InvalidRequestError, match=r"another event loop; make the pipeline inside the asyncio.run"):
            _run(work())


def test_a_callback_stops_the_run_and_a_closed_pipeline_says_so(server: TritonDouble) -> None:
    async def stop(who: Any, step: int, timestep: float, given: Any) -> None:
        who._interrupt = True

    async def work() -> None:
        async with await AsyncFaceCLIPPipeline.from_pretrained(server.address) as client:
            result = await client("a lighthouse", num_inference_steps=4, callback_on_step_end=stop)
            assert result.images == [] and "after step 1 of 4" in result.warnings[0] and client.interrupt
        with pytest.raises(InvalidRequestError, match="was closed"):
            await client("a lighthouse")

    _run(work())


def test_steps_as_a_stream_and_through_both_kinds_of_callback(server: TritonDouble) -> None:
    async def work() -> None:
        steps: list[int] = []

        async def slow_callback(pipe: Any, step: int, timestep: float, given: dict[str, Any]) -> None:
            await asyncio.sleep(0)
            steps.append(step)

        async with await AsyncFaceCLIPPipeline.from_pretrained(server.address) as client:
            *progress, result = [event async for event in client.stream("a lighthouse", num_inference_steps=2)]
            assert progress == [Progress(1, 2, 999.0), Progress(2, 2, 998.0)]
            assert isinstance(result, FaceCLIPOutput)
            await client("a lighthouse", num_inference_steps=2, callback_on_step_end=slow_callback)
            await client("a lighthouse", num_inference_steps=3, callback_on_step_end=lambda *args: steps.append(args[1]))
        assert steps == [0, 1, 0, 1, 2]

    _run(work())


def test_steps_need_a_streaming_model(unary_server: TritonDouble) -> None:
    async def work() -> None:
        async with await AsyncFaceCLIPPipeline.from_pretrained(unary_server.address) as client:
            with pytest.raises(ModelNotFoundError, match="no streaming model"):
                await client("a lighthouse", callback_on_step_end=print)
            assert not await client.can_stream()

    _run(work())


@pytest.mark.parametrize("options", [{}, {"callback_on_step_end": print}])
def test_cancelling_the_task_cancels_the_request(server: TritonDouble, options: dict[str, Any]) -> None:
    async def work() -> None:
        async with await AsyncFaceCLIPPipeline.from_pretrained(server.address) as client:
            task = asyncio.create_task(client("slow", **options))
            assert await asyncio.to_thread(server.steps_sent.wait, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.cancelled.wait, 5)

    _run(work())


def test_closing_a_stream_cancels_the_request(server: TritonDouble) -> None:
    async def work() -> None:
        async with await AsyncFaceCLIPPipeline.from_pretrained(server.address) as client:
            events = client.stream("slow")
            assert isinstance(await anext(events), Progress)
            await events.aclose()
            assert await asyncio.to_thread(server.cancelled.wait, 5)

    _run(work())


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_a_stream_that_was_left_is_no_longer_in_memory(server: TritonDouble, photo: bytes, uncollected: None, how: str) -> None:
    """With it would be the photographs that were sent, until garbage is collected."""

    async def leave(client: AsyncFaceCLIPPipeline) -> None:
        events = client.stream("slow", face_image=photo)
        await anext(events)
        if how == "closed":
            await events.aclose()
        else:
            waiting = asyncio.ensure_future(_last(events))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])  # an error that is raised here would be in a circle with its own traceback

    async def work() -> None:
        async with await AsyncFaceCLIPPipeline.from_pretrained(server.address) as client:
            await leave(client)
            for _ in range(500):
                held = [each for each in gc.get_objects() if isinstance(each, grpc.aio.StreamStreamCall)]
                if not held:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError(f"{len(held)} calls are held")

    async def _last(events: Any) -> None:
        async for _ in events:
            pass

    _run(work())
