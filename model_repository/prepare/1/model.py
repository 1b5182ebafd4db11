"""First step of the ensemble: checks the request, by the policy too, finds and aligns faces, tokenises. Several at once, see `Lanes`.

Its callers hold a place for the request already, so `execute` returns at once and nobody waits here for a refusal. Files keep
cores busy for seconds, so whoever needs a core for a millisecond, such as a refusal, a step or a probe, goes before them.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from faceclip_serving.audit.consent import Rule
from faceclip_serving.audit.identities import Identities
from faceclip_serving.checks.policy import PHOTOGRAPHS, PROMPT
from faceclip_serving.contract.digest import weights_of
from faceclip_serving.contract.errors import Cancelled
from faceclip_serving.contract.models import Purpose
from faceclip_serving.contract.operations import Lost, Prepare
from faceclip_serving.contract.request import parse_one
from faceclip_serving.contract.tensors import Array
from faceclip_serving.face.budget import SharingCores, WithinBudget
from faceclip_serving.face.detectors import Detector, YuNet
from faceclip_serving.models import adapter
from faceclip_serving.models.checks import checks_of
from faceclip_serving.models.holder import asking
from faceclip_serving.models.lanes import Lanes, Task, due, is_heavy
from faceclip_serving.models.photographs import prepare_identity, prepare_list, purpose_of
from faceclip_serving.models.prepare import prepare
from faceclip_serving.models.prompts import load_tokenizer

NICENESS = 10
"""Of the threads that prepare, as `nice` counts: about a tenth of a core's time where others want all of it."""


def _stand_back() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)  # of this thread alone, on Linux


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        self._setup = setup
        self._rule = Rule.from_settings(setup.settings)
        weights, features = weights_of(setup.folder), setup.variant.face_features
        self._identities = Identities.from_settings(setup.settings, setup.variant.name, weights, features)
        self._tokenizers = [load_tokenizer(setup.folder / tokens.tokenizer) for tokens in setup.variant.tokens]
        self._checks = checks_of(setup.settings, PROMPT, PHOTOGRAPHS)
        self._ask = asking(setup.call)
        self._own = threading.local()
        ask, count = self._ask, setup.settings["preparing_threads"]
        self._lanes = Lanes(count, lambda places: ask(Lost(places))["lost"], _stand_back)
        self._telling = ThreadPoolExecutor(1, thread_name_prefix="tell")

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            try:
                arrays = adapter.decode(request, self._setup.signature)
                context = adapter.context(request)
                tenant, priority = (parse_one(name, self._setup.variant, arrays) for name in ("tenant", "priority"))
            except Exception as error:  # noqa: BLE001 - every failure becomes that request's own error response
                adapter.send(sender, adapter.failure(error, request))
                continue
            heavy = is_heavy(arrays, self._checks.asks_others)
            work = partial(self._serve, request, sender, arrays, context)
            when = due(context.received, priority, self._setup.settings["batch_head_start_s"])
            give_up = partial(self._give_up, request, sender, context.place)
            self._lanes.submit(Task(context.place, tenant, heavy, work, give_up, when))

    def _serve(self, request: Any, sender: Any, arrays: dict[str, Array], context: adapter.Context, task: Task) -> None:
        """Prepares a request. The answer frees its tensors, and `_give_up` may answer meanwhile: files are copies, and what is a view of
        them is read at the beginning."""
        self._telling.submit(self._begin, context.place, task)
        try:
            response = adapter.encode(self._prepared(arrays, context, task), self._setup.signature)
        except Exception as error:  # noqa: BLE001 - every failure becomes that request's own error response
            response = adapter.failure(self._why(context.place) if task.lost.is_set() else error, request)
        if task.may_answer():
            adapter.send(sender, response)

    def _give_up(self, request: Any, sender: Any, place: str) -> None:
        adapter.send(sender, adapter.failure(self._why(place), request))

    def _begin(self, place: str, task: Task) -> None:
        """Tells the sampler, while the work goes on. Where the request has ended meanwhile, so does the work."""
        try:
            self._ask(Prepare(place))
        except Exception:  # noqa: BLE001 - whatever it has ended by, it is told by `_why`
            task.lost.set()

    def _why(self, place: str) -> Exception:
        """Why a request has ended."""
        try:
            self._ask(Prepare(place))
        except Exception as error:  # noqa: BLE001 - the answer
            return error
        return Cancelled("the request has ended before it was prepared")

    def _prepared(self, arrays: dict[str, Array], context: adapter.Context, task: Task) -> dict[str, Array]:
        setup = self._setup
        budget_s = setup.settings["photo_budget_s"]
        detect = WithinBudget(self._detector(), budget_s, context.deadline, task.lost.is_set)
        told = context.place, context.deadline, context.id, context.received, self._checks, self._rule
        purpose = purpose_of(arrays)
        if purpose is not None:
            looking = prepare_list if purpose is Purpose.LIST else prepare_identity
            return looking(setup.variant, detect, setup.digest, arrays, *told)
        return prepare(setup.variant, self._tokenizers, detect, setup.digest, arrays, *told, self._identities)

    def _detector(self) -> Detector:
        """One for each thread: it keeps the size of its picture."""
        if not hasattr(self._own, "detector"):
            self._own.detector = SharingCores(YuNet(), lambda: self._lanes.crowded)
        detector: Detector = self._own.detector
        return detector

    def finalize(self) -> None:
        self._lanes.stop()
        self._telling.shutdown(wait=False, cancel_futures=True)
