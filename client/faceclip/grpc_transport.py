"""The transports over gRPC, blocking and asyncio.

They use the messages and stubs that tritonclient generates from Triton's protocol, not its `InferenceServerClient`: that one
turns gRPC's status codes into text, and streams through a callback on a thread of its own, harder to cancel than a loop.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from .address import Address
from .errors import FaceCLIPError, InvalidRequestError, error_from_status
from .transport import Array, Arrays, ModelConfig, ModelState, ServerState
from .wire import cancel_request, infer_arrays, infer_request, model_config, model_states, report, verify_request

MAX_RESPONSE_BYTES = 256 * 2**20
"""Four raw 2048 x 2048 RGB pictures are 48 MiB. gRPC's own limit is 4 MiB."""

CLOSE_TIMEOUT_S = 1.0

_OPTIONS = [
    ("grpc.max_send_message_length", -1),  # photographs: the server's limit holds
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    # A unary call is silent for as long as the pictures take, and routers forget silent connections. Triton closes the
    # connection of a client that pings more often than every 300 s, unless it is configured otherwise.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Below this package's own delays between attempts, so that each attempt really connects.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]

_ROUND_ROBIN = ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}))
"""Calls go round all addresses of a name. Otherwise all of a process go to the first that answers."""
_NO_PROXY = ("grpc.enable_http_proxy", 0)

# Without it Triton reports an error of a stream as text only, and the status code is lost.
_STREAM_METADATA = ("triton_grpc_error", "true")


class _Connection:
    """What both transports share: the channel's making, the metadata, and the translation of errors."""

    def __init__(
        self, grpc_module: Any, address: Address, headers: Mapping[str, str] | None, root_certificates: str | Path | None
    ) -> None:
        self.address = address.target
        self._proxy = address.proxy
        self._closed = False
        options = [*_OPTIONS, *([_ROUND_ROBIN] if address.balanced else []), *([_NO_PROXY] if address.local else [])]
        self._metadata = [(name.lower(), value) for name, value in (headers or {}).items()]
        if address.tls:
            roots = None if root_certificates is None else Path(root_certificates).read_bytes()
            self._channel = grpc_module.secure_channel(address.target, grpc.ssl_channel_credentials(roots), options=options)
        else:
            self._channel = grpc_module.insecure_channel(address.target, options=options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidRequestError(
                f"{self.address}: this connection was closed; make another pipeline by from_pretrained, and close it after the last call"
            )

    def _open_stream(self, model: str, inputs: Arrays, timeout_s: float | None, request_id: str) -> Any:
        self._check_open()
        requests = iter([infer_request(model, inputs, (), timeout_s, request_id)])
        return self._stub.ModelStreamInfer(requests, timeout=timeout_s, metadata=[*self._metadata, _STREAM_METADATA])

    def _read_stream(self, response: Any) -> dict[str, Array]:
        if response.error_message:  # a server older than the metadata above
            raise error_from_status("UNKNOWN", response.error_message, self.address)
        return infer_arrays(response.infer_response)

    def _error(self, error: grpc.RpcError, timeout_s: float | None) -> FaceCLIPError:
        found = error_from_status(error.code().name, error.details() or "", self.address, timeout_s)
        if self._proxy is not None and found.safe_to_retry:
            found.args = (f"{found}; it was tried through the environment's {self._proxy}: is no_proxy missing the host?",)
        return found


class GrpcTransport(_Connection):
    """Blocking gRPC. One channel; may be used by several threads."""

    def __init__(
        self, address: Address, headers: Mapping[str, str] | None = None, root_certificates: str | Path | None = None
    ) -> None:
        super().__init__(grpc, address, headers, root_certificates)

    def infer(
        self, model: str, inputs: Arrays, outputs: Sequence[str], timeout_s: float | None, request_id: str = ""
    ) -> dict[str, Array]:
        request = infer_request(model, inputs, outputs, timeout_s, request_id)
        return infer_arrays(self._call(self._stub.ModelInfer, request, timeout_s))

    def stream(
        self, model: str, inputs: Arrays, timeout_s: float | None, request_id: str = ""
    ) -> Generator[dict[str, Array], None, None]:
        call = self._open_stream(model, inputs, timeout_s, request_id)
        try:
            for response in call:
                yield self._read_stream(response)
        except grpc.RpcError as error:
            raise self._error(error, timeout_s) from error
        finally:
            call.cancel()  # the generator was closed, or Ctrl-C; no effect on a finished call

    def cancel(self, model: str, request_id: str, timeout_s: float | None) -> bool:
        answer = infer_arrays(self._call(self._stub.ModelInfer, cancel_request(model, request_id), timeout_s))
        return bool(answer["ended"][0])

    def verify(self, model: str, picture: bytes | None, timeout_s: float | None) -> dict[str, Any]:
        return report(infer_arrays(self._call(self._stub.ModelInfer, verify_request(model, picture), timeout_s)))

    def model_config(self, model: str, timeout_s: float | None) -> ModelConfig:
        return model_config(self._call(self._stub.ModelConfig, service_pb2.ModelConfigRequest(name=model), timeout_s))

    def models(self, timeout_s: float | None) -> list[ModelState]:
        return model_states(self._call(self._stub.RepositoryIndex, service_pb2.RepositoryIndexRequest(), timeout_s))

    def server(self, timeout_s: float | None) -> ServerState:
        metadata = self._call(self._stub.ServerMetadata, service_pb2.ServerMetadataRequest(), timeout_s)
        ready = self._call(self._stub.ServerReady, service_pb2.ServerReadyRequest(), timeout_s).ready
        return ServerState(metadata.name, metadata.version, ready)

    def close(self) -> None:
        self._closed = True
        # gRPC waits here for its calls to end, and an interrupt (Ctrl-C) at the wrong moment leaves one that never does
        # (grpc/grpc issues 19973, 20026). The calls are cancelled before that wait begins.
        closing = threading.Thread(target=self._channel.close, daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT_S)

    def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        self._check_open()
        call = method.future(request, timeout=timeout_s, metadata=self._metadata)
        try:
            return call.result()
        except grpc.RpcError as error:
            raise self._error(error, timeout_s) from error
        finally:
            call.cancel()  # Ctrl-C while waiting; no effect on a finished call


class AsyncGrpcTransport(_Connection):
    """gRPC for asyncio. Belongs to the event loop it was made in, or first used in."""

    def __init__(
        self, address: Address, headers: Mapping[str, str] | None = None, root_certificates: str | Path | None = None
    ) -> None:
        super().__init__(grpc.aio, address, headers, root_certificates)
        self._loop: asyncio.AbstractEventLoop | None = None

    def _check_open(self) -> None:
        super()._check_open()
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise InvalidRequestError(
                f"{self.address}: this connection belongs to another event loop; make the pipeline inside the asyncio.run() that uses it"
            )

    async def infer(
        self, model: str, inputs: Arrays, outputs: Sequence[str], timeout_s: float | None, request_id: str = ""
    ) -> dict[str, Array]:
        request = infer_request(model, inputs, outputs, timeout_s, request_id)
        return infer_arrays(await self._call(self._stub.ModelInfer, request, timeout_s))

    async def stream(
        self, model: str, inputs: Arrays, timeout_s: float | None, request_id: str = ""
    ) -> AsyncGenerator[dict[str, Array], None]:
        call = self._open_stream(model, inputs, timeout_s, request_id)
        responses = aiter(call)
        try:
            async for response in responses:
                yield self._read_stream(response)
        except grpc.RpcError as error:
            raise self._error(error, timeout_s) from error
        finally:
            call.cancel()
            await responses.aclose()  # it and the call hold one another, and with them the photographs that were sent

    async def cancel(self, model: str, request_id: str, timeout_s: float | None) -> bool:
        answer = infer_arrays(await self._call(self._stub.ModelInfer, cancel_request(model, request_id), timeout_s))
        return bool(answer["ended"][0])

    async def verify(self, model: str, picture: bytes | None, timeout_s: float | None) -> dict[str, Any]:
        return report(infer_arrays(await self._call(self._stub.ModelInfer, verify_request(model, picture), timeout_s)))

    async def model_config(self, model: str, timeout_s: float | None) -> ModelConfig:
        return model_config(await self._call(self._stub.ModelConfig, service_pb2.ModelConfigRequest(name=model), timeout_s))

    async def models(self, timeout_s: float | None) -> list[ModelState]:
        return model_states(await self._call(self._stub.RepositoryIndex, service_pb2.RepositoryIndexRequest(), timeout_s))

    async def server(self, timeout_s: float | None) -> ServerState:
        metadata = await self._call(self._stub.ServerMetadata, service_pb2.ServerMetadataRequest(), timeout_s)
        ready = (await self._call(self._stub.ServerReady, service_pb2.ServerReadyRequest(), timeout_s)).ready
        return ServerState(metadata.name, metadata.version, ready)

    async def close(self) -> None:
        self._closed = True
        await self._channel.close()

    async def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        self._check_open()
        try:
            return await method(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._error(error, timeout_s) from error
