"""Calls that are sent once: who is not reached, or too busy, is left for another server, instead of being asked again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager

from faceclip import AsyncGrpcTransport, FaceCLIPError
from faceclip.transport import Array, Arrays


class OnceTransport(AsyncGrpcTransport):
    """The client asks again by itself where `safe_to_retry` or `lost`; here the first is a `NotBegun` instead, the second an error."""

    async def infer(
        self, model: str, inputs: Arrays, outputs: Sequence[str], timeout_s: float | None, request_id: str = ""
    ) -> dict[str, Array]:
        with _once():
            return await super().infer(model, inputs, outputs, timeout_s, request_id)

    async def stream(
        self, model: str, inputs: Arrays, timeout_s: float | None, request_id: str = ""
    ) -> AsyncGenerator[dict[str, Array], None]:
        with _once():
            async for arrays in super().stream(model, inputs, timeout_s, request_id):
                yield arrays


@contextmanager
def _once() -> Iterator[None]:
    try:
        yield
    except FaceCLIPError as error:
        error.lost = False  # nor is a drawing repeated whose server was lost: jobs count that, and others hear of it
        if error.safe_to_retry:
            error.safe_to_retry = False
            raise NotBegun(error) from error
        raise


class NotBegun(Exception):
    """A call that did not reach its server."""

    def __init__(self, error: FaceCLIPError) -> None:
        super().__init__(str(error))
        self.error = error
