"""Questions and orders to a running sampler: drain before a stop, since a stop breaks requests that have steps to go.

These calls go to an inner model, which answers operators alone: `Connection.parameters` carry the key.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from faceclip_serving.contract.callers import OPERATOR_KEY_VARIABLE
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.models import CONTROL, REPORT, VERIFIED
from faceclip_serving.contract.names import DEFAULT_DEPLOYMENT, SAMPLER, VERIFY, model_name
from faceclip_serving.contract.operations import Drain, Operation, Status, encode

from .direct import Connection, grpc_client

ANSWER_TIMEOUT_S = 2.0
"""Of one sampler in a drain, which asks again."""
NO_KEY = f". To steer a server that was started elsewhere or by somebody else, set {OPERATOR_KEY_VARIABLE} to the same text there and here"


class ControlError(UserError):
    """The sampler could not be asked."""


@dataclass(frozen=True)
class Left:
    """What a drain has found. False once nothing is in flight, and that is known of every sampler."""

    in_flight: int = 0
    """Requests in the samplers that answered."""
    silent: Mapping[str, str] = field(default_factory=dict)
    """Deployment whose sampler did not answer -> why. What it has in flight is not known."""

    def __bool__(self) -> bool:
        return bool(self.in_flight or self.silent)

    def __str__(self) -> str:
        count = "1 request is in flight" if self.in_flight == 1 else f"{self.in_flight} requests are in flight"
        known = [count] if self.in_flight or not self.silent else []
        return "; ".join([*known, *(f"the sampler of '{name}' does not answer ({why})" for name, why in self.silent.items())])


def ask(to: Connection, operation: Operation, deployment: str = DEFAULT_DEPLOYMENT) -> dict[str, Any]:
    """Sends one operation to a deployment's sampler; its answer. Raises `ControlError`."""
    with grpc_client(to) as client:
        return ask_with(client, to, operation, deployment, 30)


def ask_with(
    client: grpc.InferenceServerClient, to: Connection, operation: Operation, deployment: str, timeout_s: float
) -> dict[str, Any]:
    """The same over a connection that is there."""
    wire = grpc.InferInput(CONTROL.name, [1], CONTROL.dtype.value)
    wire.set_data_from_numpy(encode(operation))
    try:
        answer = client.infer(
            model_name(SAMPLER, deployment),
            [wire],
            outputs=[grpc.InferRequestedOutput(REPORT.name)],
            parameters=dict(to.parameters),
            client_timeout=timeout_s,
        )
    except InferenceServerException as error:
        told = re.sub(r"^\w+\|", "", str(error.message()))
        cure = NO_KEY if "only models of this server" in told else ""
        raise ControlError(f"{told}{cure}") from None
    return json.loads(answer.as_numpy(REPORT.name)[0])  # type: ignore[no-any-return]


def marks_of(to: Connection, deployment: str = DEFAULT_DEPLOYMENT) -> dict[str, Any]:
    """Which marks a deployment's pictures get. Raises `ControlError`."""
    return told_by(to, deployment)["marks"]  # type: ignore[no-any-return]


def told_by(to: Connection, deployment: str = DEFAULT_DEPLOYMENT) -> dict[str, Any]:
    """`marks` that a deployment's pictures get, `checks` of its requests, its rules of `consent`, whether there is an `audit` log, and
    the weights' `licence`. Raises `ControlError`."""
    with grpc_client(to) as client:
        try:
            answer = client.infer(model_name(VERIFY, deployment), [], client_timeout=30)
        except InferenceServerException as error:
            raise ControlError(str(error.message())) from None
    return json.loads(answer.as_numpy(VERIFIED.name)[0])  # type: ignore[no-any-return]


def drain(
    to: Connection,
    names: Collection[str],
    timeout_s: float,
    tell: Callable[[Left], None] = lambda left: None,
    over: Callable[[], bool] = lambda: False,
    linger_s: float = 0.0,
) -> Left:
    """Stops admission of these deployments and waits for what is in flight; what is left when the time is up.

    `linger_s`: for so long they are not ready, but take work: until proxies have heard of it. The time runs from then on.
    `tell` hears what is left whenever that changes. A sampler that does not answer is asked again, and holds up no other. `over`:
    whether waiting has become useless.
    """
    lingered = time.monotonic() + linger_s
    deadline = lingered + timeout_s
    told, draining = Left(), set[str]()
    with grpc_client(to) as client:
        while True:
            counts, silent = {}, {}
            for name in names:
                operation = Status() if name in draining else Drain(linger_s=max(0.0, lingered - time.monotonic()))
                try:
                    counts[name] = int(ask_with(client, to, operation, name, ANSWER_TIMEOUT_S)["in_flight"])
                    draining.add(name)
                except ControlError as error:
                    silent[name] = str(error)
            left = Left(sum(counts.values()), silent)
            now = time.monotonic()
            if (not left and now > lingered) or now >= deadline or over():
                return left
            if (left.in_flight, left.silent.keys()) != (told.in_flight, told.silent.keys()):
                tell(told := left)
            time.sleep(0.2)


def cut(to: Connection, names: Collection[str]) -> None:
    """Ends what is in flight in these deployments: its callers hear that the server stops. A sampler that does not answer is let be."""
    with grpc_client(to) as client:
        for name in names:
            with contextlib.suppress(ControlError):
                ask_with(client, to, Drain(cut=True), name, ANSWER_TIMEOUT_S)


def resume(to: Connection, names: Collection[str]) -> None:
    """These deployments take work again. Raises `ControlError` that names those which could not be asked, after all were."""
    silent = {}
    with grpc_client(to) as client:
        for name in names:
            try:
                ask_with(client, to, Drain(on=False), name, ANSWER_TIMEOUT_S)
            except ControlError as error:
                silent[name] = str(error)
    if silent:
        reasons = "; ".join(f"the sampler of '{name}' does not answer ({why})" for name, why in silent.items())
        raise ControlError(f"{to.target}: {reasons}: whether it takes work is not known")
