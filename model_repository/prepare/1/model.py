"""First step of the ensemble: admits the request, checks it, finds and aligns faces, tokenises.

`execute` returns at once. A few threads ask the sampler for a place, so that a full server refuses in milliseconds whatever else is
being prepared; as many as there are cores then prepare those that were admitted. Each holds its place meanwhile.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from faceclip_serving.contract import operations
from faceclip_serving.contract.errors import Cancelled, InvalidRequest, outcome
from faceclip_serving.contract.operations import Admit, End, Leave, Prepare
from faceclip_serving.contract.tensors import Array
from faceclip_serving.face.detectors import Detector, YuNet
from faceclip_serving.models import adapter
from faceclip_serving.models.holder import Holder, asking
from faceclip_serving.models.prepare import prepare
from faceclip_serving.models.prompts import load_tokenizer

ADMITTING_THREADS = 4


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        self._setup = setup
        self._tokenizers = [load_tokenizer(setup.folder / tokens.tokenizer) for tokens in setup.variant.tokens]
        self._ask = asking(setup.call)
        self._holder = Holder(self._ask)
        self._own = threading.local()
        self._admitting = ThreadPoolExecutor(ADMITTING_THREADS, thread_name_prefix="admit")
        self._preparing = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="prepare")

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            self._admitting.submit(self._admit, request, request.get_response_sender())

    def _admit(self, request: Any, sender: Any) -> None:
        try:
            limit_us = adapter.timeout_us(request)
            arrays = adapter.decode(request, self._setup.signature)
            if "control" in arrays:  # the caller is another model of ours, has a place and holds it
                asked = operations.decode(arrays.pop("control"))
                if not isinstance(asked, Prepare):
                    raise InvalidRequest(f"control: expected 'prepare', got {asked}")
                self._preparing.submit(self._work, request, sender, arrays, asked, False)
                return
            deadline = time.monotonic() + limit_us / 1e6 if limit_us else None
            place = self._ask(Admit(deadline=deadline))["place"]
            self._holder.hold(place)
            self._preparing.submit(self._work, request, sender, arrays, Prepare(place, deadline), True)
        except Exception as error:  # noqa: BLE001 - every failure becomes that request's own error response
            adapter.send(sender, adapter.failure(error, request))

    def _work(self, request: Any, sender: Any, arrays: dict[str, Array], asked: Prepare, own: bool) -> None:
        """Prepares an admitted request. `own`: the place is held here, and handed on to the ensemble."""
        place, ended = asked.place, "ok"
        try:
            if self._ask(asked)["gone"]:
                raise Cancelled("the request has ended before its preparation began: its caller left, or its time ran out")
            outputs = prepare(
                self._setup.variant, self._tokenizers, self._detector(), self._setup.digest, arrays, place, asked.deadline
            )
            response = adapter.encode(outputs, self._setup.signature)
        except Exception as error:  # noqa: BLE001 - every failure becomes that request's own error response
            ended, response = outcome(error), adapter.failure(error, request)
        try:
            if own:
                self._holder.drop(place)
                self._ask(Leave(place) if ended == "ok" else End(place, ended))
        except Exception as error:  # noqa: BLE001 - the sampler is stopping or gone; the caller still needs an answer
            response = adapter.failure(error, request)
        adapter.send(sender, response)

    def _detector(self) -> Detector:
        """One for each thread: it keeps the size of its picture."""
        if not hasattr(self._own, "detector"):
            self._own.detector = YuNet()
        detector: Detector = self._own.detector
        return detector

    def finalize(self) -> None:
        self._holder.stop()
        for threads in (self._admitting, self._preparing):
            threads.shutdown(wait=False, cancel_futures=True)
