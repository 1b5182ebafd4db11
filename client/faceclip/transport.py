"""The seam between this client and a server: what must be asked of a server, in numpy arrays, whatever carries it.

Everything above this seam is testable with an object that answers these calls. Every call raises `FaceCLIPError` on failure;
`timeout_s` is the limit of that call in seconds, None for no limit; `request_id` names it to the server.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]
"""Tensor name -> array. BYTES tensors are object arrays of `bytes`."""


@dataclass(frozen=True)
class ModelConfig:
    """What a client needs of a Triton model configuration."""

    name: str
    inputs: Mapping[str, str]
    """Input name -> datatype, in the protocol's names: `INT32`, `FP32`, `BYTES`…"""
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class ModelState:
    """A line of the server's repository index."""

    name: str
    ready: bool
    reason: str
    """Why it is not ready; may be empty."""


@dataclass(frozen=True)
class ServerState:
    name: str
    version: str
    ready: bool
    """The server's own word: all its models are ready."""


class Transport(Protocol):
    """Blocking calls."""

    @property
    def address(self) -> str: ...

    def infer(
        self, model: str, inputs: Arrays, outputs: Sequence[str], timeout_s: float | None, request_id: str = ""
    ) -> dict[str, Array]: ...

    def stream(
        self, model: str, inputs: Arrays, timeout_s: float | None, request_id: str = ""
    ) -> Generator[dict[str, Array], None, None]:
        """The responses of a decoupled model. Closing the generator cancels the work on the server."""

    def cancel(self, model: str, request_id: str, timeout_s: float | None) -> bool:
        """Ends the requests of an id by the server's model for that; whether there was one."""

    def verify(self, model: str, picture: bytes | None, timeout_s: float | None) -> dict[str, Any]:
        """What the server's model for that says of a picture's marks; without a picture: of those that the server puts on its own."""

    def model_config(self, model: str, timeout_s: float | None) -> ModelConfig:
        """Raises `ModelNotFoundError` if there is no such model."""

    def models(self, timeout_s: float | None) -> list[ModelState]: ...

    def server(self, timeout_s: float | None) -> ServerState: ...

    def close(self) -> None: ...


class AsyncTransport(Protocol):
    """The same calls for asyncio. Cancelling the awaiting task cancels the work on the server."""

    @property
    def address(self) -> str: ...

    async def infer(
        self, model: str, inputs: Arrays, outputs: Sequence[str], timeout_s: float | None, request_id: str = ""
    ) -> dict[str, Array]: ...

    def stream(
        self, model: str, inputs: Arrays, timeout_s: float | None, request_id: str = ""
    ) -> AsyncGenerator[dict[str, Array], None]: ...

    async def cancel(self, model: str, request_id: str, timeout_s: float | None) -> bool: ...

    async def verify(self, model: str, picture: bytes | None, timeout_s: float | None) -> dict[str, Any]: ...

    async def model_config(self, model: str, timeout_s: float | None) -> ModelConfig: ...

    async def models(self, timeout_s: float | None) -> list[ModelState]: ...

    async def server(self, timeout_s: float | None) -> ServerState: ...

    async def close(self) -> None: ...
