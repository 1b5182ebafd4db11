"""Questions and orders to a running sampler: drain before a stop, since a stop breaks requests that have steps to go.

These calls go to an inner model. A proxy in front of a production server lets the public reach `faceclip` and `faceclip_stream`
only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.operations import Drain, Operation, Status, encode
from faceclip_serving.contract.signatures import CONTROL, ENSEMBLE, REPORT, SAMPLER, model_name

from .probe import deployments


class ControlError(UserError):
    """The sampler could not be asked."""


def ask(url: str, operation: Operation, deployment: str = ENSEMBLE) -> dict[str, Any]:
    """Sends one operation to a deployment's sampler; its answer. Raises `ControlError`."""
    with grpc.InferenceServerClient(url) as client:
        try:
            return ask_with(client, operation, deployment, 30)
        except InferenceServerException as error:
            raise ControlError(f"{url}: {error.message()}") from None


def ask_with(client: grpc.InferenceServerClient, operation: Operation, deployment: str, timeout_s: float) -> dict[str, Any]:
    """The same over a connection that is there. Raises `InferenceServerException`."""
    wire = grpc.InferInput(CONTROL.name, [1], CONTROL.dtype.value)
    wire.set_data_from_numpy(encode(operation))
    answer = client.infer(
        model_name(SAMPLER, deployment), [wire], outputs=[grpc.InferRequestedOutput(REPORT.name)], client_timeout=timeout_s
    )
    return json.loads(answer.as_numpy(REPORT.name)[0])  # type: ignore[no-any-return]


def drain(
    url: str, timeout_s: float, tell: Callable[[int], None] = lambda left: None, names: Iterable[str] | None = None
) -> int:
    """Stops admission of all deployments and waits for what is in flight; how many requests are left when the time is up.

    `tell` hears how many are left whenever that changes. `names`: the deployments; None: the server is asked.
    """
    deadline = time.monotonic() + timeout_s
    names = _deployments(url) if names is None else list(names)
    told, left = 0, _ask_all(url, names, Drain())
    while left and time.monotonic() < deadline:
        if left != told:
            tell(told := left)
        time.sleep(0.2)
        left = _ask_all(url, names, Status())
    return left


def resume(url: str) -> None:
    """Takes work again."""
    _ask_all(url, _deployments(url), Drain(on=False))


def _deployments(url: str) -> list[str]:
    try:
        return deployments(url)
    except InferenceServerException as error:
        raise ControlError(f"{url}: {error.message()}") from None


def _ask_all(url: str, names: Iterable[str], operation: Operation) -> int:
    """Asks every sampler; requests in flight in all of them."""
    return sum(int(ask(url, operation, name)["in_flight"]) for name in names)
