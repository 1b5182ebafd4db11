"""Questions and orders to a running sampler: drain before a stop, since a stop breaks requests that have steps to go.

These calls go to an inner model. A proxy in front of a production server lets the public reach `faceclip` and `faceclip_stream`
only.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from faceclip_serving.signatures import CONTROL, REPORT, SAMPLER


class ControlError(RuntimeError):
    """The sampler could not be asked."""


def ask(url: str, **operation: Any) -> dict[str, Any]:
    """Sends one operation (see faceclip_serving/service.py) and returns the answer. Raises `ControlError`."""
    wire = grpc.InferInput(CONTROL.name, [1], CONTROL.dtype.value)
    wire.set_data_from_numpy(np.array([json.dumps(operation).encode()], dtype=object))
    with grpc.InferenceServerClient(url) as client:
        try:
            answer = client.infer(SAMPLER, [wire], outputs=[grpc.InferRequestedOutput(REPORT.name)], client_timeout=30)
        except InferenceServerException as error:
            raise ControlError(f"{url}: {error.message()}") from None
    return json.loads(answer.as_numpy(REPORT.name)[0])  # type: ignore[no-any-return]


def drain(url: str, timeout_s: float) -> int:
    """Stops admission and waits for what is in flight; how many requests are left when the time is up."""
    deadline = time.monotonic() + timeout_s
    left = int(ask(url, op="drain")["in_flight"])
    while left and time.monotonic() < deadline:
        time.sleep(0.2)
        left = int(ask(url, op="status")["in_flight"])
    return left


def resume(url: str) -> None:
    """Takes work again."""
    ask(url, op="drain", on=False)
