"""First step of the ensemble: checks the request, finds and aligns faces, tokenises. As many requests at once as there are cores.

Its callers hold a place for the request already, so `execute` returns at once and nobody waits here for a refusal. Photographs keep
cores busy for seconds, so whoever needs a core for a millisecond, such as a refusal, a step or a probe, goes before them.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2

from faceclip_serving.contract.operations import Prepare
from faceclip_serving.contract.tensors import Array
from faceclip_serving.face.budget import WithinBudget
from faceclip_serving.face.detectors import Detector, YuNet
from faceclip_serving.models import adapter
from faceclip_serving.models.holder import asking
from faceclip_serving.models.prepare import prepare
from faceclip_serving.models.prompts import load_tokenizer

NICENESS = 10
"""Of the threads that prepare, as `nice` counts: about a tenth of a core's time where others want all of it."""


def _stand_back() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)  # of this thread alone, on Linux


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        cv2.setNumThreads(1)  # a request is one thread, so that `preparing_threads` says how many cores are taken
        self._setup = setup
        self._tokenizers = [load_tokenizer(setup.folder / tokens.tokenizer) for tokens in setup.variant.tokens]
        self._ask = asking(setup.call)
        self._own = threading.local()
        self._threads = ThreadPoolExecutor(setup.settings["preparing_threads"], "prepare", _stand_back)

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            self._threads.submit(self._serve, request, request.get_response_sender())

    def _serve(self, request: Any, sender: Any) -> None:
        adapter.send(sender, adapter.respond(request, self._setup.signature, lambda arrays: self._one(request, arrays)))

    def _one(self, request: Any, arrays: dict[str, Array]) -> dict[str, Array]:
        context = adapter.context(request)
        self._ask(Prepare(context.place))
        setup = self._setup
        detect = WithinBudget(self._detector(), setup.settings["photo_budget_s"], context.deadline)
        return prepare(
            setup.variant, self._tokenizers, detect, setup.digest, arrays,
            context.place, context.deadline, context.id, context.received,
        )  # fmt: skip

    def _detector(self) -> Detector:
        """One for each thread: it keeps the size of its picture."""
        if not hasattr(self._own, "detector"):
            self._own.detector = YuNet()
        detector: Detector = self._own.detector
        return detector

    def finalize(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
