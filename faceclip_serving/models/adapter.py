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

from ..contract.callers import SECRET, TENANT_HEADER, Caller, caller, check_own, own_secret
from ..contract.digest import DIGEST_FILE, package_digest
from ..contract.errors import Busy, Cancelled, DeadlineExceeded, InvalidRequest, NotANumber, Refused, Stopping
from ..contract.models import models
from ..contract.names import PUBLIC, SAMPLER, model_name
from ..contract.placements import Placement, placement_of
from ..contract.request import check_id, check_names
from ..contract.settings import Settings, resolve
from ..contract.tensors import Array, Signature, Tensor
from ..contract.variants.table import VARIANTS
from ..contract.variants.variant import Variant

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """For which request a model calls another one. Travels beside the tensors, through the ensemble too.

    Triton's trace does not: it is gone once `execute` has returned, and a server of 2.51 that is handed it later dies.
    """

    id: str = ""
    """Triton's own id of the request."""
    place: str = ""
    """In the sampler."""
    received: float = 0.0
    """When the request came, monotonic seconds."""
    deadline: float | None = None
    """When nobody waits for it any more."""


@dataclass(frozen=True)
class Setup:
    """What a Python model knows of itself when it starts."""

    variant: Variant
    placement: Placement
    signature: Signature
    folder: Path
    """The model's version folder."""
    digest: str
    settings: Settings
    deployment: str
    """Under which name the server offers the variant; part of the names of its models."""
    models: Mapping[str, Signature]
    """Role -> signature, for all models of the variant."""
    secret: str
    """By which the models of this server know each other."""

    def call(self, role: str, arrays: Mapping[str, Array], context: Context | None = None) -> dict[str, Array]:
        """Runs another model of this deployment and returns its outputs in CPU memory. Raises what the model raised."""
        context, signature = context or Context(), self.models[role]
        response = pb_utils.InferenceRequest(
            model_name=model_name(role, self.deployment),
            request_id=context.id,
            requested_output_names=[tensor.name for tensor in signature.outputs],
            inputs=[_to_triton(tensor, arrays[tensor.name]) for tensor in signature.inputs if tensor.name in arrays],
            parameters={SECRET: self.secret, _CONTEXT: _encode_context(context)},
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        ).exec()
        if response.has_error():
            raise _raised(role, response.error().message())
        outputs = {tensor.name: pb_utils.get_output_tensor_by_name(response, tensor.name) for tensor in signature.outputs}
        return {name: tensor.as_numpy() for name, tensor in outputs.items() if tensor is not None}


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
    if "plans_on" in parameters:
        placement = placement.on(parameters["plans_on"])
    placement = replace(
        placement, gpu=int(parameters.get("gpu", 0)), vae_tile=int(parameters.get("vae_tile", placement.vae_tile))
    )
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
        resolve(placement, parameters["deployment"], parameters),
        parameters["deployment"],
        signatures,
        own_secret(),
    )


def decode(request: Any, signature: Signature) -> dict[str, Array]:
    """The request's tensors; optional ones that did not come are left out. `tenant` is what a proxy says in `TENANT_HEADER`, where it does.

    Raises `InvalidRequest` for unknown parameters, and where somebody else than our own models calls an inner one, before a tensor is
    read. Operators may call the sampler, which asks what for.
    """
    told = parameters(request)
    if signature.name not in PUBLIC and not (signature.name == SAMPLER and caller(told) is Caller.OPERATOR):
        check_own(signature.name, caller(told))
    check_names(told, [tensor.name for tensor in signature.inputs])
    found = {tensor.name: pb_utils.get_input_tensor_by_name(request, tensor.name) for tensor in signature.inputs}
    arrays = {name: tensor.as_numpy() for name, tensor in found.items() if tensor is not None}
    if TENANT_HEADER in told and TENANT in found:
        arrays[TENANT] = np.array([str(told[TENANT_HEADER]).encode()], object)
    return arrays


def context(request: Any) -> Context:
    """What an own model said of the request that it calls for. Of use where `decode` has let the request in."""
    told = json.loads(parameters(request)[_CONTEXT])
    return Context(request.request_id(), told["place"], told["received"], told["deadline"])


def _encode_context(context: Context) -> str:
    return json.dumps({"place": context.place, "received": context.received, "deadline": context.deadline})


def parameters(request: Any) -> dict[str, Any]:
    """What came beside the tensors. HTTP's `generate` puts there what is no tensor of the model; steps of an ensemble see it too."""
    try:
        told: dict[str, Any] = json.loads(request.parameters() or "{}")
    except ValueError as error:  # names and values in other encodings, or what JSON cannot hold
        raise InvalidRequest(f"parameters: expected UTF-8, got something else ({error}); send text in UTF-8") from None
    return told


def request_id(request: Any) -> str:
    """Triton's own id of the request; empty where none was given. It goes with each call of another model, so it has a longest length."""
    try:
        told = str(request.request_id())
    except ValueError as error:
        raise InvalidRequest(f"id: expected UTF-8, got something else ({error}); send text in UTF-8") from None
    return check_id("id", told)


def who_asks(request: Any) -> Caller:
    """Who sent a request, whatever it holds."""
    try:
        return caller(parameters(request))
    except InvalidRequest:
        return Caller.PUBLIC


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
    Refused: "INVALID_ARG",
    NotANumber: "INTERNAL",
    Busy: "UNAVAILABLE",
    Stopping: "UNAVAILABLE",
    Cancelled: "CANCELLED",
    DeadlineExceeded: "CANCELLED",
}
"""Errors that speak to a caller in words of their own, and Triton's code for them."""

_STOPS = re.compile(r"Server not ready|Server is stopping|has no available versions")
"""What Triton says to an inner call while it stops (2.51)."""
TENANT = "tenant"
_CONTEXT = "faceclip_context"
"""Request parameter of calls between our models, JSON."""
_KIND_FIRST = re.compile(r"(?:in ensemble '[^']*', )?(\w+)\|(.*)", re.DOTALL)
"""An inner call loses the error's code (server 2.51), so an own caller gets the kind of error in front of its message."""


class _FailedElsewhere(RuntimeError):
    """Another model of ours has failed, and has logged it."""


_KINDS = {kind.__name__: kind for kind in (*_CODES, _FailedElsewhere)}


def _raised(model: str, message: str) -> Exception:
    """The error that an inner call came back with."""
    told = _KIND_FIRST.fullmatch(message)
    if told is not None and told[1] == Refused.__name__:
        return Refused(*json.loads(told[2]))
    if told is not None and told[1] in _KINDS:
        raised: Exception = _KINDS[told[1]](told[2])
        return raised
    if _STOPS.search(message):
        return Stopping("the server is stopping")
    return RuntimeError(f"{model}: {message}")


def failure(error: Exception, request: Any) -> Any:
    """The response to `request` that carries the error's own words."""
    kind = next((kind for kind in _CODES if isinstance(error, kind)), _FailedElsewhere)
    code = getattr(pb_utils.TritonError, _CODES.get(kind, "INTERNAL"))
    message = str(error)
    if kind is _FailedElsewhere and not isinstance(error, _FailedElsewhere):
        log.error("request failed", exc_info=error)
        message = f"{type(error).__name__}: {error}"
    message = message.encode("utf-8", "backslashreplace").decode()  # a caller's text that we quote may hold what UTF-8 cannot
    if who_asks(request) is Caller.OWN:
        if isinstance(error, Refused):
            message = json.dumps([message, error.audit])
        message = f"{kind.__name__}|{message}"
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def respond(request: Any, signature: Signature, function: Callable[[dict[str, Array]], Mapping[str, Array]]) -> Any:
    """The response of one request; `function` maps declared inputs to declared outputs."""
    try:
        return encode(function(decode(request, signature)), signature)
    except Exception as error:  # noqa: BLE001 - every failure becomes that request's own error response
        return failure(error, request)


def send(sender: Any, response: Any) -> None:
    """Sends the last response of a request whose sender was kept, from any thread."""
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def send_more(sender: Any, response: Any) -> None:
    """Sends a response of a decoupled model that others follow."""
    sender.send(response)


def _to_triton(tensor: Tensor, array: Array) -> Any:
    return pb_utils.Tensor(tensor.name, np.ascontiguousarray(array))
