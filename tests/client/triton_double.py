"""A small gRPC server that speaks Triton's protocol, in the test's own process.

It checks requests with the project's own contract (`faceclip_serving.contract.parameters`) and draws noise instead of people. Statuses and
messages of its failures are those that a Triton 2.51 server gave for the same failure. The prompt chooses the behaviour.
"""

from __future__ import annotations

import io
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc import InferResult, model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

from export.repository.render import render
from faceclip.wire import IMAGE_ENCODING
from faceclip_serving.checks import policy
from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.models import PREVIEW_IMAGE, PROGRESS
from faceclip_serving.contract.names import CANCEL, STREAM, VERIFY
from faceclip_serving.contract.parameters import PREVIEW, GenerationRequest
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.request import parse_request, reference_photos
from faceclip_serving.contract.settings import resolve
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.marking.authority import make
from faceclip_serving.marking.marker import Marker
from faceclip_serving.models.marks import marker_of, verify

VARIANT = TINY_SDXL
BUSY = "server busy: 4 requests in flight; retry after 0.2 s"
CRASH = (
    "Failed to process the request(s) for model 'worker_0_0', message: RuntimeError: boom\n\n"
    "At:\n  /models/worker/1/model.py(9): execute\n"
)


@cache
def marker() -> Marker:
    """With keys of its own; the server's."""
    folder = Path(tempfile.mkdtemp(prefix="double-"))
    make(folder, "Double Ltd")
    settings = {**resolve(CPU, "faceclip", environment={}), "marks_folder": str(folder)}
    return marker_of(settings, VARIANT)


class Refused(Exception):
    def __init__(self, status: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.status = status


class TritonDouble(service_pb2_grpc.GRPCInferenceServiceServicer):
    """One server on 127.0.0.1. `stream`: has the streaming model; `certificate`: (key, chain) in PEM, for TLS; `port` 0: a free one."""

    def __init__(
        self, stream: bool = True, certificate: tuple[bytes, bytes] | None = None, port: int = 0, host: str = "127.0.0.1"
    ) -> None:
        self.models = _configs()
        if not stream:
            del self.models[STREAM]
        self.unready: dict[str, str] = {}
        self.received: list[dict[str, Any]] = []
        """Input arrays of every inference request, but for how its pictures travel."""
        self.verified: list[dict[str, Any]] = []
        """Input arrays of every question about marks."""
        self.metadata: list[dict[str, str]] = []
        """Metadata of every inference call."""
        self.peers: list[str] = []
        """Address of the caller of every inference call."""
        self.timeouts_us: list[int] = []
        """The `timeout` parameter of every inference request, microseconds; 0: none."""
        self.ids: list[str] = []
        """The id of every inference request."""
        self.tells_statuses = True
        """Whether errors of a stream come with a status, for callers who ask for it; older servers send text only."""
        self.busy_calls = 0
        """Refuse so many calls as busy."""
        self.failures: list[tuple[str, str]] = []
        """Status and message of the next requests, before anything is done for them."""
        self.breaks: list[tuple[str, str]] = []
        """The same of the next streams, after their first step."""
        self.steps_sent = threading.Event()
        self.cancelled = threading.Event()
        self._server = grpc.server(
            futures.ThreadPoolExecutor(8),
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        if certificate is None:
            port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            port = self._server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([certificate]))
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(grace=0).wait()

    # ------------------------------------------------------------------------------------------------------- the protocol
    def ServerMetadata(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerMetadataResponse(name="triton", version="2.51.0")

    def ServerReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=not self.unready)

    def RepositoryIndex(self, request: Any, context: Any) -> Any:
        response = service_pb2.RepositoryIndexResponse()
        for name in self.models:
            response.models.add(name=name, version="1", state="READY")
        for name, reason in self.unready.items():
            response.models.add(name=name, version="1", state="UNAVAILABLE", reason=reason)
        return response

    def ModelConfig(self, request: Any, context: Any) -> Any:
        self._known(request.name, context)
        return service_pb2.ModelConfigResponse(config=self.models[request.name])

    def ModelInfer(self, request: Any, context: Any) -> Any:
        if request.model_name == CANCEL:
            wanted = InferResult(_as_response(request)).as_numpy("request_id")[0].decode()
            response = service_pb2.ModelInferResponse(raw_output_contents=[bytes([wanted in self.ids])])
            response.outputs.add(name="ended", datatype="BOOL", shape=[1])
            return response
        if request.model_name == VERIFY:
            self._known(request.model_name, context)
            asked = {tensor.name: InferResult(_as_response(request)).as_numpy(tensor.name) for tensor in request.inputs}
            self.verified.append(asked)
            try:
                return _response(verify(marker(), asked, lambda: {"checks": policy.read().told()}))
            except InvalidRequest as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        arrays = self._receive(request, context)
        try:
            wanted = self._obey(arrays)
        except Refused as refused:
            context.abort(refused.status, f"[request id: {request.id}] {refused}")
        if wanted.prompt == "slow":
            ended = self._watch(context)
            self.steps_sent.set()
            ended.wait(10)
        outputs = _outputs(wanted, arrays)
        if wanted.prompt == "half an answer":
            del outputs["seeds"]
        return _response({output.name: outputs[output.name] for output in request.outputs if output.name in outputs})

    def ModelStreamInfer(self, request_iterator: Any, context: Any) -> Any:
        for request in request_iterator:
            try:
                for arrays in self._steps(self._receive(request, context), self._watch(context)):
                    yield service_pb2.ModelStreamInferResponse(infer_response=_response(arrays))
                    self.steps_sent.set()
            except Refused as refused:
                if self.tells_statuses and "triton_grpc_error" in self.metadata[-1]:
                    context.abort(refused.status, str(refused))
                yield service_pb2.ModelStreamInferResponse(error_message=str(refused))

    def _steps(self, arrays: dict[str, Any], ended: threading.Event) -> Iterator[dict[str, Any]]:
        wanted = self._obey(arrays)
        for step in range(1, wanted.num_inference_steps + 1):
            outputs = {PROGRESS.name: _json({"step": step, "total": wanted.num_inference_steps, "timestep": 1000.0 - step})}
            if arrays.get(PREVIEW.name, [False])[0]:
                outputs[PREVIEW_IMAGE.name] = _objects([_picture(step, 8, 8, "JPEG")])
            yield outputs
            if self.breaks:
                status, message = self.breaks.pop(0)
                raise Refused(grpc.StatusCode[status], message)
            if wanted.prompt == "slow":
                ended.wait(10)
                return
            if wanted.prompt == "crash between steps":
                raise Refused(grpc.StatusCode.INTERNAL, CRASH)
        if wanted.prompt != "half an answer":
            yield _outputs(wanted, arrays)

    # -------------------------------------------------------------------------------------------------------- behaviour
    def _receive(self, request: Any, context: Any) -> dict[str, Any]:
        self._known(request.model_name, context)
        result = InferResult(_as_response(request))
        arrays = {tensor.name: result.as_numpy(tensor.name) for tensor in request.inputs if tensor.name != IMAGE_ENCODING}
        self.received.append(arrays)
        self.timeouts_us.append(request.parameters["timeout"].int64_param if "timeout" in request.parameters else 0)
        self.ids.append(request.id)
        self.peers.append(context.peer())
        self.metadata.append({item.key: item.value for item in context.invocation_metadata()})
        return arrays

    def _watch(self, context: Any) -> threading.Event:
        """Set when the call ends from the caller's side, before the server has answered."""
        ended = threading.Event()

        def end() -> None:
            ended.set()
            self.cancelled.set()

        context.add_callback(end)
        return ended

    def _known(self, model: str, context: Any) -> None:
        if model not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{model}' is not found")

    def _obey(self, arrays: dict[str, Any]) -> GenerationRequest:
        if self.failures:
            status, message = self.failures.pop(0)
            raise Refused(grpc.StatusCode[status], message)
        if self.busy_calls > 0:
            self.busy_calls -= 1
            raise Refused(grpc.StatusCode.UNAVAILABLE, BUSY)
        try:
            wanted = parse_request(VARIANT, {name: array for name, array in arrays.items() if name != PREVIEW.name})
        except InvalidRequest as error:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        if wanted.prompt == "crash":
            raise Refused(grpc.StatusCode.INTERNAL, CRASH)
        if wanted.prompt == "status":  # the negative prompt names a status and a message
            status, _, message = wanted.negative_prompt.partition(" ")
            raise Refused(grpc.StatusCode[status], message)
        return wanted


@cache
def _rendered() -> dict[str, bytes]:
    texts = render(VARIANT, CPU)
    return {name: text_format.Parse(text, model_config_pb2.ModelConfig()).SerializeToString() for name, text in texts.items()}


def _configs() -> dict[str, Any]:
    """The configurations of the repository that is served, by model."""
    return {name: model_config_pb2.ModelConfig.FromString(config) for name, config in _rendered().items()}


def _outputs(wanted: GenerationRequest, arrays: dict[str, Any]) -> dict[str, Any]:
    faces = [list(Image.open(io.BytesIO(photo)).size) for photo in reference_photos(VARIANT, arrays)]
    details = {"timings_s": {"total": 0.1}, "faces": faces, "versions": {"server": "2.51.0"}, "parameters": asdict(wanted)}
    details["warnings"] = ["prompt: longer than the model reads"] if "long" in wanted.prompt else []
    files = [_picture(seed, wanted.height, wanted.width, wanted.output_format) for seed in wanted.seeds]
    if wanted.prompt == "not a picture":
        files = [b"sorry"]
    return {"images": _objects(files), "seeds": np.array(wanted.seeds, np.int64), "details": _json(details)}


def _picture(seed: int, height: int, width: int, format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(file, format)
    return file.getvalue()


def _json(document: dict[str, Any]) -> Any:
    return _objects([json.dumps(document).encode()])


def _objects(items: list[bytes]) -> Any:
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array


def _response(arrays: dict[str, Any]) -> Any:
    response = service_pb2.ModelInferResponse()
    for name, array in arrays.items():
        datatype = "BYTES" if array.dtype.hasobject else "INT64"
        response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        response.raw_output_contents.append(serialize_byte_tensor(array).item() if datatype == "BYTES" else array.tobytes())
    return response


def _as_response(request: Any) -> Any:
    """A request's tensors as a response's, because tritonclient decodes only those."""
    response = service_pb2.ModelInferResponse(raw_output_contents=request.raw_input_contents)
    for tensor in request.inputs:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return response


def wait_until(condition: Any, seconds: float = 5.0) -> bool:
    """Whether `condition()` becomes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
