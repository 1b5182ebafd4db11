"""The streaming entry: the ensemble's flow, driven here, with a response per step and cancellation.

Triton does not tell a running ensemble that its caller is gone; a decoupled model can ask. It runs each request in a thread of
its own, holds its place in the sampler, and ends it there as soon as nobody listens any more, whatever it is waiting for.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from faceclip_serving.contract.errors import Cancelled
from faceclip_serving.models import adapter
from faceclip_serving.models.holder import Holder, asking
from faceclip_serving.models.streaming import stream
from faceclip_serving.sampling.previews import PREVIEW_FILE

SPARE_THREADS = 8
"""Beyond what may be in flight: for requests that are about to be refused."""


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        self._variant, self._signature = setup.variant, setup.signature
        self._call = setup.call
        self._ask = asking(setup.call)
        self._holder = Holder(self._ask)
        in_flight = setup.placement.max_active + setup.placement.max_waiting
        self._factors = np.load(setup.folder / PREVIEW_FILE)
        self._threads = ThreadPoolExecutor(in_flight + SPARE_THREADS, thread_name_prefix="stream")

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            self._threads.submit(self._serve, request, request.get_response_sender())

    def _serve(self, request: Any, sender: Any) -> None:
        try:
            arrays = adapter.decode(request, self._signature)
            limit_us = adapter.timeout_us(request)
            deadline = time.monotonic() + limit_us / 1e6 if limit_us else None
            parts = (self._variant, self._call, self._ask, self._holder, self._factors)
            for response in stream(*parts, arrays, sender.is_cancelled, deadline):
                sender.send(adapter.encode(response, self._signature))
            adapter.close(sender)
        except Cancelled:
            adapter.close(sender)
        except Exception as error:  # noqa: BLE001 - every failure becomes that request's own error response
            adapter.send(sender, adapter.failure(error, request))

    def finalize(self) -> None:
        self._holder.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)
