"""KServe-v2 messages <-> the transport's values. Knows protobuf; opens no connection, so that both transports share it."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from tritonclient.grpc import InferResult, model_config_pb2, service_pb2
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

from .errors import ProtocolError
from .transport import Array, Arrays, ModelConfig, ModelState

IMAGE_ENCODING = "image_encoding"
"""How pictures are answered: as files, which gRPC can carry. No caller's business, so it is no parameter of theirs."""
_AS_FILES = np.array([b"binary"], np.object_)


def infer_request(
    model: str, inputs: Arrays, outputs: Sequence[str] = (), timeout_s: float | None = None, request_id: str = ""
) -> Any:
    """A `ModelInferRequest`. No `outputs`: all of the model's. `timeout_s`: after that the server may drop the request."""
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    if timeout_s is not None:
        # In microseconds. The server learns of the end of a call by itself, but not why, nor beforehand.
        request.parameters["timeout"].int64_param = max(1, int(timeout_s * 1e6))
    for name, array in {**inputs, IMAGE_ENCODING: _AS_FILES}.items():
        is_bytes = array.dtype.hasobject
        request.inputs.add(name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
        request.raw_input_contents.append(serialize_byte_tensor(array).item() if is_bytes else array.tobytes())
    for name in outputs:
        request.outputs.add(name=name)
    return request


def cancel_request(model: str, request_id: str) -> Any:
    """A `ModelInferRequest` to the model that ends requests by their id."""
    return _one_text(model, "request_id", request_id.encode())


def verify_request(model: str, picture: bytes | None) -> Any:
    """A `ModelInferRequest` to the model that reads marks; without a picture it says which marks the server puts on its own."""
    return service_pb2.ModelInferRequest(model_name=model) if picture is None else _one_text(model, "picture", picture)


def _one_text(model: str, name: str, content: bytes) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name=name, datatype="BYTES", shape=[1])
    request.raw_input_contents.append(serialize_byte_tensor(np.array([content], np.object_)).item())
    return request


def report(arrays: Arrays) -> dict[str, Any]:
    """The document of a verifying model's answer."""
    try:
        document = json.loads(arrays["report"][0])
    except (KeyError, IndexError, ValueError) as error:
        raise ProtocolError(f"output 'report': expected a JSON document ({error})") from error
    if not isinstance(document, dict):
        raise ProtocolError(f"output 'report': expected a JSON object, got {type(document).__name__}")
    return document


def infer_arrays(response: Any) -> dict[str, Array]:
    """The outputs of a `ModelInferResponse`."""
    result = InferResult(response)
    arrays: dict[str, Array] = {}
    for output in response.outputs:
        try:
            array = result.as_numpy(output.name)
        except (ValueError, TypeError, struct.error) as error:
            declared = f"{output.datatype} {list(output.shape)}"
            raise ProtocolError(f"output '{output.name}': expected {declared}, got other data ({error})") from error
        arrays[output.name] = array
    return arrays


def model_config(response: Any) -> ModelConfig:
    """From a `ModelConfigResponse`."""
    config = response.config
    return ModelConfig(
        name=config.name,
        inputs={tensor.name: _datatype(tensor.data_type) for tensor in config.input if tensor.name != IMAGE_ENCODING},
        parameters={name: value.string_value for name, value in config.parameters.items()},
    )


def model_states(response: Any) -> list[ModelState]:
    """From a `RepositoryIndexResponse`: one entry per model, ready if any version of it is."""
    states: dict[str, ModelState] = {}
    for model in response.models:
        known = states.get(model.name)
        if known is None or not known.ready:
            states[model.name] = ModelState(model.name, model.state == "READY", model.reason)
    return list(states.values())


def _datatype(value: int) -> str:
    """`TYPE_INT32` -> `INT32`. A config says `TYPE_STRING` for what requests call `BYTES`."""
    name: str = model_config_pb2.DataType.Name(value).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name
