"""The seam: a pipeline over a transport that is not gRPC, and gRPC's own details that a pipeline does not show."""

from __future__ import annotations

import io
import json
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2

from faceclip import FaceCLIPOutput, FaceCLIPPipeline, ModelConfig, ModelNotFoundError, ModelState, ProtocolError, ServerState
from faceclip.address import Address
from faceclip.grpc_transport import GrpcTransport
from faceclip.wire import infer_arrays, infer_request, model_states

from .triton_double import TritonDouble


class Echo:
    """Answers each request with one grey picture and, as details, what it was asked."""

    address = "nowhere"

    def __init__(self) -> None:
        self.closed = False
        self.limits_s: list[float | None] = []
        self.cancelled: list[str] = []

    def infer(
        self, model: str, inputs: Any, outputs: Sequence[str], timeout_s: float | None, request_id: str = ""
    ) -> dict[str, Any]:
        self.limits_s.append(timeout_s)
        file = io.BytesIO()
        Image.new("RGB", (8, 8), "gray").save(file, "PNG")
        asked = {"model": model, "prompt": inputs["prompt"][0].decode(), "outputs": list(outputs), "id": request_id}
        return {"images": _objects(file.getvalue()), "seeds": np.array([4]), "details": _objects(json.dumps(asked).encode())}

    def stream(
        self, model: str, inputs: Any, timeout_s: float | None, request_id: str = ""
    ) -> Generator[dict[str, Any], None, None]:
        yield {"progress": _objects(b'{"step": 1, "total": 1}')}
        yield self.infer(model, inputs, (), timeout_s)

    def cancel(self, model: str, request_id: str, timeout_s: float | None) -> bool:
        self.cancelled.append(f"{model} {request_id}")
        return True

    def model_config(self, model: str, timeout_s: float | None) -> ModelConfig:
        if not model.startswith("mine"):
            raise ModelNotFoundError(model)
        return ModelConfig(model, {"prompt": "BYTES"}, {"variant": "own", "interface": "{}"})

    def models(self, timeout_s: float | None) -> list[ModelState]:
        return [ModelState("mine", True, ""), ModelState("broken", False, "no memory")]

    def server(self, timeout_s: float | None) -> ServerState:
        return ServerState("echo", "1", True)

    def close(self) -> None:
        self.closed = True


def _objects(*items: bytes) -> Any:
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array


def test_a_pipeline_works_over_any_transport() -> None:
    echo = Echo()
    with FaceCLIPPipeline.from_pretrained("own", transport=echo) as pipe:
        result = pipe("hello", timeout_s=5, request_id="r1")
        told = {"model": "mine", "prompt": "hello", "outputs": ["images", "seeds", "details"], "id": "r1"}
        assert result.details == told and pipe.cancel("r1") and echo.cancelled == ["mine_cancel r1"]
        assert result.seed == 4
        assert echo.limits_s[0] is not None and echo.limits_s[0] <= 5
        assert isinstance(list(pipe.stream("hello", timeout_s=None))[-1], FaceCLIPOutput)
        assert echo.limits_s[1] is None
    assert echo.closed


def test_a_given_transport_outlives_a_failed_start() -> None:
    echo = Echo()
    with pytest.raises(ModelNotFoundError):
        FaceCLIPPipeline.from_pretrained("flux", transport=echo)
    assert not echo.closed


def test_large_responses_pass(server: TritonDouble) -> None:
    four_large_pictures = 4 * 2048 * 2048 * 3
    server.unready = {"broken": "x" * four_large_pictures}
    with closing(GrpcTransport(Address(server.address, tls=False))) as transport:
        assert len(transport.models(20)[-1].reason) == four_large_pictures


def test_tensors_of_a_request_on_the_wire() -> None:
    request = infer_request("faceclip", {"height": np.array([64], np.int32), "prompt": _objects(b"hi")}, ["images"])
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in request.inputs] == [
        ("height", "INT32", [1]),
        ("prompt", "BYTES", [1]),
        ("image_encoding", "BYTES", [1]),  # files over gRPC, which can carry them
    ]
    assert list(request.raw_input_contents) == [b"\x40\0\0\0", b"\x02\0\0\0hi", b"\x06\0\0\0binary"]
    assert [output.name for output in request.outputs] == ["images"]


@pytest.mark.parametrize(
    ("datatype", "shape", "content"),
    [("INT64", [2], b"\0" * 8), ("BYTES", [1], b""), ("BYTES", [1], b"\x09\0\0\0x"), ("INT64", [1], b"\0" * 7)],
)
def test_an_output_that_does_not_fit_its_shape_is_a_protocol_error(datatype: str, shape: list[int], content: bytes) -> None:
    response = service_pb2.ModelInferResponse(raw_output_contents=[content])
    response.outputs.add(name="seeds", datatype=datatype, shape=shape)
    with pytest.raises(ProtocolError, match="output 'seeds'"):
        infer_arrays(response)


def test_a_model_is_ready_if_any_of_its_versions_is() -> None:
    response = service_pb2.RepositoryIndexResponse()
    for name, state in (("a", "UNAVAILABLE"), ("a", "READY"), ("a", "UNAVAILABLE"), ("b", "LOADING")):
        response.models.add(name=name, state=state)
    assert [(state.name, state.ready) for state in model_states(response)] == [("a", True), ("b", False)]
