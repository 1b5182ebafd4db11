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
from faceclip_serving.contract.parameters import PARAMETERS
from faceclip_serving.contract.signatures import ENSEMBLE


class ProbeError(UserError):
    """The request failed. `final`: the server answered, so waiting will not help."""

    def __init__(self, message: str, final: bool) -> None:
        super().__init__(message)
        self.final = final


def probe(
    url: str,
    timeout_s: float = 60,
    model: str = ENSEMBLE,
    interface: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Sends it and returns the picture's `details`. Raises `ProbeError`.

    `interface`: the model's own; None: the server is asked. `size`: height and width; None: the least.
    """
    with grpc.InferenceServerClient(url) as client:
        try:
            if not client.is_server_ready(client_timeout=5):
                raise ProbeError("models are still loading", final=False)
        except InferenceServerException as error:
            raise ProbeError(f"no answer from {url}: {error.message()}", final=False) from None
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
            raise ProbeError(f"the request failed: {error.message()}", final=True) from None
    details = result.as_numpy("details")
    if details is None or details.size == 0:
        raise ProbeError("the server returned empty tensors: numpy 2 in its Python? (numpy<2 is needed)", final=True)
    return json.loads(details[0])  # type: ignore[no-any-return]


def probe_all(url: str, timeout_s: float = 60) -> dict[str, dict[str, Any]]:
    """Probes every deployment of the server; name -> details. Raises `ProbeError`."""
    try:
        names = deployments(url)
    except InferenceServerException as error:
        raise ProbeError(f"no answer from {url}: {error.message()}", final=False) from None
    if not names:
        raise ProbeError(f"{url} offers no FaceCLIP model: assemble one (python -m export repository)", final=True)
    return {name: probe(url, timeout_s, name) for name in names}


def deployments(url: str) -> list[str]:
    """Names of the public models of a server. Where its index is closed to us, the default one's."""
    with grpc.InferenceServerClient(url) as client:
        if not client.is_server_ready(client_timeout=5):
            return [ENSEMBLE]
        try:
            names = sorted(model.name for model in client.get_model_repository_index(client_timeout=10).models)
            configs = {name: client.get_model_config(name, client_timeout=10).config for name in names}
        except InferenceServerException as error:
            if "restricted" in str(error.message()):
                return [ENSEMBLE]
            raise
    return [name for name, config in configs.items() if "interface" in config.parameters]


def server_version(url: str) -> str:
    """The server's own version, e.g. `2.51.0`."""
    with grpc.InferenceServerClient(url) as client:
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
