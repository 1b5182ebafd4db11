"""`AsyncFaceCLIPPipeline`: the same pipeline for asyncio. Only the waiting differs from the blocking form.

Pictures are encoded and decoded in a thread, so that the event loop stays free.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .address import split_target
from .errors import FaceCLIPError, ModelNotFoundError, ServerUnavailableError
from .grpc_transport import AsyncGrpcTransport
from .habits import warn_not_here
from .language.apart import apart
from .people import Face, Identity, read_faces, read_identity
from .photos import Photo
from .pipeline import RemotePipeline, named, with_variant
from .recipes import find
from .request import Call, GenerateOptions, check_request_id, language_of, texts_of, with_parameters
from .result import OUTPUTS, FaceCLIPOutput, Progress
from .retry import Retry
from .served import CONTROL_TIMEOUT_S, DEFAULT_MODEL, ServedModel, choose_model, describe
from .transport import Arrays, AsyncTransport, ModelConfig

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self, Unpack

_Result = TypeVar("_Result")


class AsyncFaceCLIPPipeline(RemotePipeline):
    """`FaceCLIPPipeline` for asyncio: `pipe = await AsyncFaceCLIPPipeline.from_pretrained(…)`, `result = await pipe(…)`.

    Cancelling the task cancels the request; the server stops working on it if it was a streamed one. Belongs to one event loop.
    """

    def __init__(self, transport: AsyncTransport, config: ServedModel, timeout_s: float | None = 600.0) -> None:
        super().__init__(transport.address, config, timeout_s)
        self._transport = transport

    @classmethod
    async def from_pretrained(
        cls,
        url_or_variant: str | Sequence[str] | None = None,
        *,
        model: str | None = None,
        timeout_s: float | None = 600.0,
        headers: Mapping[str, str] | None = None,
        root_certificates: str | Path | None = None,
        token: str | None = None,
        affinity: bool = False,
        torch_dtype: object = None,
        transport: AsyncTransport | None = None,
    ) -> Self:
        """As `FaceCLIPPipeline.from_pretrained`."""
        if torch_dtype is not None:
            warn_not_here("torch_dtype=")
        addresses, variant = split_target(url_or_variant)
        own = transport is None
        transport = transport or AsyncGrpcTransport(addresses, headers, root_certificates, token, affinity)
        try:
            return cls(transport, await find_model(transport, model, variant), timeout_s)
        except BaseException:
            if own:
                await transport.close()
            raise

    @with_parameters
    async def __call__(self, prompt: str, **options: Unpack[GenerateOptions]) -> FaceCLIPOutput:
        """As `FaceCLIPPipeline.__call__`. The callback may be a coroutine function. The server's parameters:"""
        if options.get("callback_on_step_end") is not None:
            last = None
            async with aclosing(self.stream(prompt, **options)) as events:
                async for event in events:
                    last = event
            return self._result(last)
        call = await _prepared(prompt, options, self._prepare, prompt, options)

        async def attempt(limit_s: float | None) -> Arrays:
            return await self._transport.infer(self.config.model, call.inputs, OUTPUTS, limit_s, call.request_id)

        with named(call):
            return await asyncio.to_thread(
                self._read, call, await _retrying(attempt, Retry(call.timeout_s, call.retries, call.repeatable))
            )

    async def edit(self, image: Photo, /, prompt: str, **options: Unpack[GenerateOptions]) -> FaceCLIPOutput:
        """As `FaceCLIPPipeline.edit`."""
        options["image"] = image
        return await self(prompt, **options)

    async def recipe(self, name: str, /, **options: Any) -> FaceCLIPOutput:
        """As `FaceCLIPPipeline.recipe`."""
        return await self(**find(name).call(options))

    async def stream(self, prompt: str, **options: Unpack[GenerateOptions]) -> AsyncGenerator[Progress | FaceCLIPOutput, None]:
        """The same call, step by step: a `Progress` for each, at last the result. Closing the generator cancels the request."""
        await self.can_stream()
        call = await _prepared(prompt, options, self._prepare_stream, self._stream_config, prompt, options)
        retry = Retry(call.timeout_s, call.retries, call.repeatable)
        with named(call):
            responses, arrays = await _retrying(lambda limit_s: self._begin(call, limit_s), retry)
            event = None
            try:
                while arrays is not None:
                    # A step alone is a few bytes: a thread would cost more than reading it, at every step of every call.
                    small = "progress" in arrays and "preview_image" not in arrays
                    event = self._read_event(call, arrays) if small else await asyncio.to_thread(self._read_event, call, arrays)
                    answer = self._report(call, event)
                    if inspect.isawaitable(answer):
                        await answer
                    yield event
                    if stopped := self._stopped(call, event):
                        yield stopped
                        return
                    try:
                        arrays = await anext(responses, None)
                    except FaceCLIPError as error:  # its server was lost: it begins again, and so do its steps
                        await asyncio.sleep(retry.delay_s(error))
                        responses, arrays = await _retrying(lambda limit_s: self._begin(call, limit_s), retry)
            finally:
                await responses.aclose()
            self._result(event)

    async def can_stream(self) -> bool:
        """Whether the server has the streaming twin of this model."""
        if self._stream_config is None:
            try:
                self._stream_config = await self._transport.model_config(self.stream_model, CONTROL_TIMEOUT_S)
            except ModelNotFoundError:
                return False
        return True

    async def faces(self, photo: Photo, **options: Any) -> list[Face]:
        """As `FaceCLIPPipeline.faces`."""
        call = await asyncio.to_thread(self._prepare_faces, await self._faces_model(), photo, options)
        return read_faces(await self._asked(call), self.faces_model)

    async def identity(
        self, photos: Photo | Iterable[Photo], *, expires: datetime | str | None = None, **options: Any
    ) -> Identity:
        """As `FaceCLIPPipeline.identity`."""
        call = await asyncio.to_thread(self._prepare_identity, await self._faces_model(), photos, expires, options)
        return read_identity(await self._asked(call), self.faces_model)

    async def _asked(self, call: Call) -> Arrays:
        async def attempt(limit_s: float | None) -> Arrays:
            return await self._transport.infer(self.faces_model, call.inputs, (), limit_s, call.request_id)

        with named(call):
            return await _retrying(attempt, Retry(call.timeout_s, call.retries, call.repeatable))

    async def _faces_model(self) -> ModelConfig:
        if self._faces_config is None:
            self._faces_config = await self._transport.model_config(self.faces_model, CONTROL_TIMEOUT_S)
        return self._faces_config

    async def cancel(self, request_id: str) -> bool:
        """As `FaceCLIPPipeline.cancel`."""
        return await self._transport.cancel(self.cancel_model, check_request_id(request_id), CONTROL_TIMEOUT_S)

    async def close(self) -> None:
        """Ends the connection. The pipeline cannot be used afterwards."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _begin(self, call: Call, limit_s: float | None) -> tuple[AsyncGenerator[Arrays, None], Arrays | None]:
        responses = self._transport.stream(self.stream_model, call.inputs, limit_s, call.request_id)
        return responses, await anext(responses, None)  # once a response is here, the work has begun: no further attempt


async def _prepared(prompt: str, options: Mapping[str, Any], prepare: Callable[..., Call], /, *args: Any) -> Call:
    """A call, prepared in a thread of those who translate its texts."""
    return await apart(texts_of(prompt, options).values(), language_of(options), prepare, *args)


async def find_model(transport: AsyncTransport, model: str | None, variant: str | None) -> ServedModel:
    """As `pipeline.find_model`."""
    retry = Retry(CONTROL_TIMEOUT_S, repeatable=True)
    likely = model or (DEFAULT_MODEL if variant is None else None)
    if likely is not None:
        try:
            return describe(await _retrying(lambda limit_s: transport.model_config(likely, limit_s), retry))
        except ModelNotFoundError:
            pass  # the list below makes the message
    try:
        ready = [state.name for state in await _retrying(transport.models, retry) if state.ready]
    except ServerUnavailableError as error:
        raise with_variant(error, variant) from error.__cause__
    configs = [await transport.model_config(name, CONTROL_TIMEOUT_S) for name in ready]
    return choose_model(transport.address, configs, model, variant)


async def _retrying(attempt: Callable[[float | None], Awaitable[_Result]], retry: Retry) -> _Result:
    while True:
        try:
            return await attempt(retry.remaining_s())
        except FaceCLIPError as error:
            await asyncio.sleep(retry.delay_s(error))
