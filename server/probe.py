"""The smallest real request that goes through every model: one guided step of the least size, with a face."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tritonclient.grpc as grpc
from PIL import Image
from tritonclient.utils import InferenceServerException

from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.names import DEFAULT_DEPLOYMENT
from faceclip_serving.contract.parameters import PARAMETERS

from .direct import Connection, grpc_client


class ProbeError(UserError):
    """The request failed. `final`: the server answered, so waiting will not help."""

    def __init__(self, message: str, final: bool) -> None:
        super().__init__(message)
        self.final = final


def probe(
    to: Connection,
    timeout_s: float = 60,
    model: str = DEFAULT_DEPLOYMENT,
    interface: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Sends it and returns the picture's `details`. Raises `ProbeError`.

    `interface`: the model's own; None: the server is asked. `size`: height and width; None: the least.
    """
    with grpc_client(to) as client:
        try:
            if not client.is_server_ready(client_timeout=5):
                raise ProbeError("models are still loading", final=False)
        except InferenceServerException as error:
            raise ProbeError(f"no answer from {to.target}: {error.message()}", final=False) from None
        try:
            if interface is None:
                config = client.get_model_config(model, as_json=True, client_timeout=10)["config"]
                interface = json.loads(config["parameters"]["interface"]["string_value"])
            height, width = size or [interface["parameters"][name]["min"] for name in ("height", "width")]
            values = {
                "prompt": b"probe",
                "num_inference_steps": 1,
                "face_images": _crop(),
                "face_aligned": True,
                "height": height,
                "width": width,
                "seed": 0,
            }
            result = client.infer(
                model, [tensor_input(name, [value]) for name, value in values.items()], client_timeout=timeout_s
            )
        except InferenceServerException as error:
            cure = "; send the admin key with --header NAME=VALUE" if _is_closed(error) else ""
            raise ProbeError(f"the request failed: {error.message()}{cure}", final=True) from None
    details = result.as_numpy("details")
    if details is None or details.size == 0:
        raise ProbeError("the server returned empty tensors: numpy 2 in its Python? (numpy<2 is needed)", final=True)
    return json.loads(details[0])  # type: ignore[no-any-return]


def deployments(to: Connection) -> list[str]:
    """Names of the public models of a server. Raises `ProbeError` where they cannot be read: what is not known is not guessed."""
    with grpc_client(to) as client:
        try:
            names = sorted(model.name for model in client.get_model_repository_index(client_timeout=10).models)
            configs = {name: client.get_model_config(name, client_timeout=10).config for name in names}
        except InferenceServerException as error:
            cure = "name them with --deployment NAME"
            if _is_closed(error):
                cure += ", or send the admin key with --header NAME=VALUE"
            elif error.status() == "StatusCode.UNAVAILABLE":
                cure = "is that the server's gRPC port?"
            raise ProbeError(
                f"{to.target}: which deployments it has cannot be read ({error.message()}); {cure}", False
            ) from None
    found = [name for name, config in configs.items() if "interface" in config.parameters]
    if not found:
        raise ProbeError(f"{to.target} offers no FaceCLIP model: assemble one (python -m export repository)", final=True)
    return found


def _is_closed(error: InferenceServerException) -> bool:
    return "restricted" in str(error.message())


def server_version(to: Connection) -> str:
    """The server's own version, e.g. `2.51.0`."""
    with grpc_client(to) as client:
        return str(client.get_server_metadata().version)


def _crop() -> bytes:
    """A grey square in place of an aligned face: it goes the way of one, and belongs to nobody."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(file, "PNG")
    return file.getvalue()


def tensor_input(name: str, values: list[Any]) -> grpc.InferInput:
    """A public parameter as a gRPC input, dtype from its declaration."""
    tensor = next(tensor for tensor in PARAMETERS if tensor.name == name)
    array = np.array(values, dtype=tensor.dtype.numpy)
    wire = grpc.InferInput(name, list(array.shape), tensor.dtype.value)
    wire.set_data_from_numpy(array)
    return wire
