"""The transports over gRPC, blocking and asyncio.

They use the messages and stubs that tritonclient generates from Triton's protocol, not its `InferenceServerClient`: that one
turns gRPC's status codes into text, and streams through a callback on a thread of its own, harder to cancel than a loop.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from .address import Address, Addresses
from .calls import metadata_of_all, metadata_of_one
from .errors import FaceCLIPError, InvalidRequestError, error_from_status
from .transport import Array, Arrays, ModelConfig, ModelState, ServerState
from .turns import Servers, Turn
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
    # How long a connection may take: 20 s by default, in which a server that is gone without a word holds every call up.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # Connections of its own: gRPC shares them among all clients of a process, and a balancer of connections then sees one.
    ("grpc.use_local_subchannel_pool", 1),
]

_ROUND_ROBIN = ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}))
"""Calls go round all addresses of a name. Otherwise all of a process go to the first that answers."""
_NO_PROXY = ("grpc.enable_http_proxy", 0)

# Without it Triton reports an error of a stream as text only, and the status code is lost.
_STREAM_METADATA = ("triton_grpc_error", "true")


@dataclass(frozen=True, eq=False)
class _Server:
    """One address, and the way to it."""

    address: Address
    channel: Any
    stub: Any


class _Connection:
    """What both transports share: the channels' making, the metadata, and the translation of errors."""

    def __init__(
        self,
        grpc_module: Any,
        addresses: Address | Addresses,
        headers: Mapping[str, str] | None,
        root_certificates: str | Path | None,
        token: str | None,
        affinity: bool,
    ) -> None:
        each = (addresses,) if isinstance(addresses, Address) else addresses
        self.address = ", ".join(map(str, each))
        self._closed = False
        self._affinity = affinity
        self._metadata = metadata_of_all(headers, token)
        roots = Path(root_certificates).read_bytes() if root_certificates is not None and each[0].tls else None
        self._servers = Servers([_connected(grpc_module, address, roots) for address in each])

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidRequestError(
                f"{self.address}: this connection was closed; make another pipeline by from_pretrained, and close it after the last call"
            )

    def _turn(self, timeout_s: float | None) -> Turn[_Server]:
        self._check_open()
        return Turn(self._servers, timeout_s)

    def _metadata_for(self, inputs: Arrays) -> list[tuple[str, str]]:
        return [*self._metadata, *metadata_of_one(inputs, self._affinity)]

    def _open_stream(self, turn: Turn[_Server], model: str, inputs: Arrays, request_id: str) -> Any:
        limit_s = turn.remaining_s()
        requests = iter([infer_request(model, inputs, (), limit_s, request_id)])
        metadata = [*self._metadata_for(inputs), _STREAM_METADATA]
        return turn.member.stub.ModelStreamInfer(requests, timeout=limit_s, metadata=metadata)

    def _read_stream(self, server: _Server, response: Any) -> dict[str, Array]:
        if response.error_message:  # a server older than the metadata above
            raise error_from_status("UNKNOWN", response.error_message, server.address.target)
        return infer_arrays(response.infer_response)

    def _error(self, server: _Server, error: grpc.RpcError, timeout_s: float | None) -> FaceCLIPError:
        found = error_from_status(error.code().name, error.details() or "", server.address.target, timeout_s)
        found.__cause__ = error
        if (proxy := server.address.proxy) is not None and found.safe_to_retry:
            found.args = (f"{found}; it was tried through the environment's {proxy}: is no_proxy missing the host?",)
        return found


def _connected(grpc_module: Any, address: Address, roots: bytes | None) -> _Server:
    options = [*_OPTIONS, *([_ROUND_ROBIN] if address.balanced else []), *([_NO_PROXY] if address.local else [])]
    if address.tls:
        channel = grpc_module.secure_channel(address.target, grpc.ssl_channel_credentials(roots), options=options)
    else:
        channel = grpc_module.insecure_channel(address.target, options=options)
    return _Server(address, channel, service_pb2_grpc.GRPCInferenceServiceStub(channel))


class GrpcTransport(_Connection):
    """Blocking gRPC. One channel for each address; may be used by several threads.

    `token`: None: the environment's, if any. `affinity`: tell a proxy equal faces by a header.
    """

    def __init__(
        self,
        addresses: Address | Addresses,
        headers: Mapping[str, str] | None = None,
        root_certificates: str | Path | None = None,
        token: str | None = None,
        affinity: bool = False,
    ) -> None:
        super().__init__(grpc, addresses, headers, root_certificates, token, affinity)

    def infer(
        self, model: str, inputs: Arrays, outputs: Sequence[str], timeout_s: float | None, request_id: str = ""
    ) -> dict[str, Array]:
        request = infer_request(model, inputs, outputs, timeout_s, request_id)
        return infer_arrays(self._call("ModelInfer", request, timeout_s, self._metadata_for(inputs)))

    def stream(
        self, model: str, inputs: Arrays, timeout_s: float | None, request_id: str = ""
    ) -> Generator[dict[str, Array], None, None]:
        turn, begun = self._turn(timeout_s), False
        while True:
            call = self._open_stream(turn, model, inputs, request_id)
            try:
                for response in call:
                    begun = True
                    yield self._read_stream(turn.member, response)
                return
            except grpc.RpcError as error:
                turn.failed(self._error(turn.member, error, timeout_s), begun)
            finally:
                call.cancel()  # the generator was closed, or Ctrl-C; no effect on a finished call

    def cancel(self, model: str, request_id: str, timeout_s: float | None) -> bool:
        self._check_open()
        request, ended, failed = cancel_request(model, request_id), False, None
        for server in self._servers.members:  # any of them may have it
            try:
                answer = infer_arrays(self._ask(server, "ModelInfer", request, timeout_s, self._metadata))
                ended |= bool(answer["ended"][0])
            except FaceCLIPError as error:
                failed = error
        if failed is not None and not ended:
            raise failed
        return ended

    def verify(self, model: str, picture: bytes | None, timeout_s: float | None) -> dict[str, Any]:
        return report(infer_arrays(self._call("ModelInfer", verify_request(model, picture), timeout_s)))

    def model_config(self, model: str, timeout_s: float | None) -> ModelConfig:
        return model_config(self._call("ModelConfig", service_pb2.ModelConfigRequest(name=model), timeout_s))

    def models(self, timeout_s: float | None) -> list[ModelState]:
        return model_states(self._call("RepositoryIndex", service_pb2.RepositoryIndexRequest(), timeout_s))

    def server(self, timeout_s: float | None) -> ServerState:
        metadata = self._call("ServerMetadata", service_pb2.ServerMetadataRequest(), timeout_s)
        ready = self._call("ServerReady", service_pb2.ServerReadyRequest(), timeout_s).ready
        return ServerState(metadata.name, metadata.version, ready)

    def close(self) -> None:
        self._closed = True
        # gRPC waits here for its calls to end, and an interrupt (Ctrl-C) at the wrong moment leaves one that never does
        # (grpc/grpc issues 19973, 20026). The calls are cancelled before that wait begins.
        closing = threading.Thread(target=self._close_all, daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT_S)

    def _close_all(self) -> None:
        for server in self._servers.members:
            server.channel.close()

    def _call(
        self, method: str, request: Any, timeout_s: float | None, metadata: Sequence[tuple[str, str]] | None = None
    ) -> Any:
        turn = self._turn(timeout_s)
        while True:
            try:
                return self._ask(turn.member, method, request, turn.remaining_s(), metadata or self._metadata)
            except FaceCLIPError as error:
                turn.failed(error)

    def _ask(
        self, server: _Server, method: str, request: Any, timeout_s: float | None, metadata: Sequence[tuple[str, str]]
    ) -> Any:
        call = getattr(server.stub, method).future(request, timeout=timeout_s, metadata=metadata)
        try:
            return call.result()
        except grpc.RpcError as error:
            raise self._error(server, error, timeout_s) from error
        finally:
            call.cancel()  # Ctrl-C while waiting; no effect on a finished call


class AsyncGrpcTransport(_Connection):
    """gRPC for asyncio. Belongs to the event loop it was made in, or first used in."""

    def __init__(
        self,
        addresses: Address | Addresses,
        headers: Mapping[str, str] | None = None,
        root_certificates: str | Path | None = None,
        token: str | None = None,
        affinity: bool = False,
    ) -> None:
        super().__init__(grpc.aio, addresses, headers, root_certificates, token, affinity)
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
        return infer_arrays(await self._call("ModelInfer", request, timeout_s, self._metadata_for(inputs)))

    async def stream(
        self, model: str, inputs: Arrays, timeout_s: float | None, request_id: str = ""
    ) -> AsyncGenerator[dict[str, Array], None]:
        turn, begun = self._turn(timeout_s), False
        while True:
            call = self._open_stream(turn, model, inputs, request_id)
            responses = aiter(call)
            try:
                async for response in responses:
                    begun = True
                    yield self._read_stream(turn.member, response)
                return
            except grpc.RpcError as error:
                turn.failed(self._error(turn.member, error, timeout_s), begun)
            finally:
                call.cancel()
                await responses.aclose()  # it and the call hold one another, and with them the photographs that were sent

    async def cancel(self, model: str, request_id: str, timeout_s: float | None) -> bool:
        self._check_open()
        request, ended, failed = cancel_request(model, request_id), False, None
        for server in self._servers.members:  # any of them may have it
            try:
                answer = infer_arrays(await self._ask(server, "ModelInfer", request, timeout_s, self._metadata))
                ended |= bool(answer["ended"][0])
            except FaceCLIPError as error:
                failed = error
        if failed is not None and not ended:
            raise failed
        return ended

    async def verify(self, model: str, picture: bytes | None, timeout_s: float | None) -> dict[str, Any]:
        return report(infer_arrays(await self._call("ModelInfer", verify_request(model, picture), timeout_s)))

    async def model_config(self, model: str, timeout_s: float | None) -> ModelConfig:
        return model_config(await self._call("ModelConfig", service_pb2.ModelConfigRequest(name=model), timeout_s))

    async def models(self, timeout_s: float | None) -> list[ModelState]:
        return model_states(await self._call("RepositoryIndex", service_pb2.RepositoryIndexRequest(), timeout_s))

    async def server(self, timeout_s: float | None) -> ServerState:
        metadata = await self._call("ServerMetadata", service_pb2.ServerMetadataRequest(), timeout_s)
        ready = (await self._call("ServerReady", service_pb2.ServerReadyRequest(), timeout_s)).ready
        return ServerState(metadata.name, metadata.version, ready)

    async def close(self) -> None:
        self._closed = True
        for server in self._servers.members:
            await server.channel.close()

    async def _call(
        self, method: str, request: Any, timeout_s: float | None, metadata: Sequence[tuple[str, str]] | None = None
    ) -> Any:
        turn = self._turn(timeout_s)
        while True:
            try:
                return await self._ask(turn.member, method, request, turn.remaining_s(), metadata or self._metadata)
            except FaceCLIPError as error:
                turn.failed(error)

    async def _ask(
        self, server: _Server, method: str, request: Any, timeout_s: float | None, metadata: Sequence[tuple[str, str]]
    ) -> Any:
        try:
            return await getattr(server.stub, method)(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            raise self._error(server, error, timeout_s) from error
