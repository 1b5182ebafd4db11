"""Between Triton's Python backend and this package: decode, call, encode. The only module that touches `pb_utils`.

Errors of the caller become INVALID_ARG with their own words, a full server UNAVAILABLE, anything else INTERNAL; one failing
request never affects its neighbours in the same `execute`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from ..contract.digest import DIGEST_FILE, package_digest
from ..contract.errors import Busy, Cancelled, DeadlineExceeded, InvalidRequest, NotANumber, Stopping
from ..contract.placements import Placement, placement_of
from ..contract.request import check_names
from ..contract.signatures import model_name, models
from ..contract.tensors import Array, Signature, Tensor
from ..contract.variant import Variant
from ..contract.variants import VARIANTS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """What a Python model knows of itself when it starts."""

    variant: Variant
    placement: Placement
    signature: Signature
    folder: Path
    """The model's version folder."""
    digest: str
    encoding_cache_bytes: int
    vae_tile: int
    """Latent cells per side of the decoder's tiles; 0: none."""
    deployment: str
    """Under which name the server offers the variant; part of the names of its models."""
    models: Mapping[str, Signature]
    """Role -> signature, for all models of the variant."""

    def call(self, role: str, arrays: Mapping[str, Array], limit_us: int = 0) -> dict[str, Array]:
        """Runs another model of this deployment; see `call`."""
        return call(model_name(role, self.deployment), self.models[role], arrays, limit_us)


def setup(args: Mapping[str, str]) -> Setup:
    """Reads `initialize`'s arguments and checks that the code beside the model is the code that was assembled."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=f"%(levelname)s {args['model_name']}: %(message)s")
    config = json.loads(args["model_config"])
    parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
    folder = Path(args["model_repository"]) / args["model_version"]
    package = Path(__file__).resolve().parents[1]
    digest = package_digest(package)
    recorded = folder / DIGEST_FILE
    if package.parent != folder.resolve() or not recorded.exists() or recorded.read_text().strip() != digest:
        raise RuntimeError(
            f"{args['model_name']}: expected the assembled code in {folder}, got {package} with another digest;"
            " assemble the repository again (python -m export repository)"
        )
    placement = placement_of(VARIANTS[parameters["variant"]], parameters["placement"])
    placement = replace(placement, gpu=int(parameters.get("gpu", 0)))
    if "emulate" in parameters:
        placement = placement.emulate(json.loads(parameters["emulate"]))
    variant = placement.narrowed(VARIANTS[parameters["variant"]])
    signatures = models(variant)
    return Setup(
        variant,
        placement,
        signatures[parameters["role"]],
        folder,
        digest,
        int(parameters.get("encoding_cache_bytes", 0)),
        int(parameters.get("vae_tile", 0)),
        parameters["deployment"],
        signatures,
    )


def decode(request: Any, signature: Signature) -> dict[str, Array]:
    """The request's tensors; optional ones that did not come are left out. Raises `InvalidRequest` for unknown parameters."""
    check_names(parameters(request), [tensor.name for tensor in signature.inputs])
    found = {tensor.name: pb_utils.get_input_tensor_by_name(request, tensor.name) for tensor in signature.inputs}
    return {name: tensor.as_numpy() for name, tensor in found.items() if tensor is not None}


def parameters(request: Any) -> dict[str, Any]:
    """What came beside the tensors. HTTP's `generate` puts there what is no tensor of the model; steps of an ensemble see it too."""
    told: dict[str, Any] = json.loads(request.parameters() or "{}")
    return told


def timeout_us(request: Any) -> int:
    """The caller's limit in microseconds; 0: none. HTTP's `generate` hands it on as a parameter like any other (server 2.51)."""
    limit = request.timeout() or parameters(request).get("timeout", 0)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise InvalidRequest(f"timeout: expected microseconds, a whole number such as 60000000, got {limit!r}")
    return limit


def encode(arrays: Mapping[str, Array], signature: Signature) -> Any:
    """A response with the declared outputs."""
    signature.check_outputs(arrays)
    present = [tensor for tensor in signature.outputs if tensor.name in arrays]
    return pb_utils.InferenceResponse([_to_triton(tensor, arrays[tensor.name]) for tensor in present])


_CODES: Mapping[type[Exception], str] = {
    InvalidRequest: "INVALID_ARG",
    NotANumber: "INTERNAL",
    Busy: "UNAVAILABLE",
    Stopping: "UNAVAILABLE",
    Cancelled: "CANCELLED",
    DeadlineExceeded: "CANCELLED",
}
"""Errors that speak to a caller in words of their own, and Triton's code for them."""

_KINDS = {kind.__name__: kind for kind in _CODES}
_STOPS = re.compile(r"Server not ready|Server is stopping|has no available versions")
"""What Triton says to an inner call while it stops (2.51)."""
_FROM_MODEL = "faceclip_from_model"
"""Request parameter of calls between our models. An inner call loses the error's code (server 2.51), so for such a caller the
kind of error goes in front of its message, and `call` raises it again."""


def failure(error: Exception, request: Any) -> Any:
    """The response to `request` that carries the error's own words."""
    name = next((name for kind, name in _CODES.items() if isinstance(error, kind)), None)
    if name is None:
        log.error("request failed", exc_info=error)
        message, code = f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL
    else:
        message, code = str(error), getattr(pb_utils.TritonError, name)
    message = message.encode("utf-8", "backslashreplace").decode()  # a caller's text that we quote may hold what UTF-8 cannot
    if _FROM_MODEL in parameters(request):
        message = f"{type(error).__name__}|{message}"
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def respond(request: Any, signature: Signature, function: Callable[[dict[str, Array]], Mapping[str, Array]]) -> Any:
    """The response of one request; `function` maps declared inputs to declared outputs."""
    try:
        return encode(function(decode(request, signature)), signature)
    except Exception as error:  # noqa: BLE001 - every failure becomes that request's own error response
        return failure(error, request)


def close(sender: Any) -> None:
    """Ends a decoupled request after its last response."""
    sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def send(sender: Any, response: Any) -> None:
    """Sends the only response of a request whose sender was kept, from any thread."""
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def call(name: str, signature: Signature, arrays: Mapping[str, Array], limit_us: int = 0) -> dict[str, Array]:
    """Runs model `name` of this server (BLS) and returns its outputs in CPU memory. Raises what the model raised."""
    response = pb_utils.InferenceRequest(
        model_name=name,
        requested_output_names=[tensor.name for tensor in signature.outputs],
        inputs=[_to_triton(tensor, arrays[tensor.name]) for tensor in signature.inputs if tensor.name in arrays],
        parameters={_FROM_MODEL: True},
        timeout=limit_us,
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    ).exec()
    if response.has_error():
        kind, _, message = response.error().message().partition("|")
        if kind in _KINDS:
            raise _KINDS[kind](message)
        if _STOPS.search(response.error().message()):
            raise Stopping("the server is stopping")
        raise RuntimeError(f"{name}: {response.error().message()}")
    outputs = {tensor.name: pb_utils.get_output_tensor_by_name(response, tensor.name) for tensor in signature.outputs}
    return {name: tensor.as_numpy() for name, tensor in outputs.items() if tensor is not None}


def _to_triton(tensor: Tensor, array: Array) -> Any:
    return pb_utils.Tensor(tensor.name, np.ascontiguousarray(array))
