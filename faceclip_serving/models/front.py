"""What the public models do around a request: a place before any work, held as long as the caller is there, one end, one line of log.

Triton tells a plain or decoupled Python model that its gRPC caller has left, closed a call or run out of time (2.51), but never an
ensemble; so the ensemble stands behind this.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from ..contract.errors import OUTCOMES, DeadlineExceeded, outcome
from ..contract.kinds import Kind, kind_of
from ..contract.operations import Admit, End
from ..contract.request import parse_one
from ..contract.settings import most_in_flight
from ..contract.tensors import json_tensor
from . import adapter
from .audit import FOR_AUDIT, Recorder
from .front_metrics import FrontMetrics
from .holder import Holder, asking
from .metrics import Metrics
from .request_log import line, request_log
from .streaming import Arrays, Call, Flow

log = logging.getLogger(__name__)

DETAILS = "details"
MOST_THREADS = most_in_flight(256, 1024) + 64
"""One per request, made when it is needed: as many as settings may let in, and some to refuse the others."""


class Front:
    """Serves the requests of one public model by a flow of inner ones."""

    def __init__(self, setup: adapter.Setup, flow: Callable[[Call, Arrays, str], Flow]) -> None:
        """`flow` gets the inner models, the request's tensors and its place."""
        self._setup = setup
        self._flow = flow
        self._ask = asking(setup.call)
        self._holder = Holder(self._ask)
        self._log = request_log()
        self._recorder = Recorder(setup)
        self._told = Metrics(setup.variant.name, setup.deployment)
        self._metrics = FrontMetrics(self._told)
        self._threads = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="request")

    def accept(self, request: Any) -> None:
        """Serves a request in a thread of its own."""
        self._threads.submit(self._serve, request, request.get_response_sender(), time.monotonic())

    def stop(self) -> None:
        self._holder.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._told.stop()

    def _serve(self, request: Any, sender: Any, received: float) -> None:
        context = adapter.Context(uuid.uuid4().hex, received=received)
        arrays: Arrays = {}
        kind = Kind.UNREAD
        last: Arrays = {}
        previews: list[dict[str, Any]] = []
        admitted = False
        self._metrics.arrived()
        try:
            context = replace(context, id=adapter.request_id(request) or context.id)
            limit_us = adapter.timeout_us(request)
            context = replace(context, deadline=received + limit_us / 1e6 if limit_us else None)
            arrays = adapter.decode(request, self._setup.signature)
            kind = kind_of(self._setup.signature.name, arrays)
            tenant = parse_one("tenant", self._setup.variant, arrays)
            admitted = True  # from here on the sampler counts how it ends
            last = self._answered(arrays, context, tenant, sender, previews)
        except Exception as error:  # noqa: BLE001 - every failure becomes that request's own error response
            # Nothing here keeps it: its traceback holds this frame, so the photographs would stay until a collection.
            if not admitted:
                self._metrics.never_admitted(error)
            try:
                self._recorder.failed(context, arrays, error, previews)
            except Exception:
                log.exception("the end of a request could not be recorded")  # no picture is delivered, so it may be told
            adapter.send(sender, adapter.failure(error, request))
            self._tell(context, kind, arrays, last, error)
        else:
            self._tell(context, kind, arrays, last, None)

    def _answered(
        self, arrays: Arrays, context: adapter.Context, tenant: str, sender: Any, previews: list[dict[str, Any]]
    ) -> Arrays:
        """The last response of one request, once all were sent. Raises `Busy`, `Cancelled`, what the models raise, and what cannot be sent.

        The end is told to the sampler when the last one was sent. `previews` gets what the audit log is told of each before it is sent.
        """
        place = self._ask(Admit(context.id, tenant, context.deadline))["place"]
        self._holder.hold(place, sender.is_cancelled)
        try:
            final = self._sent(arrays, replace(context, place=place), sender, previews)
        except BaseException as error:  # whatever ends this ends the request
            self._end(place, outcome(error))
            raise
        self._end(place, outcome(None))
        return final

    def _sent(self, arrays: Arrays, context: adapter.Context, sender: Any, previews: list[dict[str, Any]]) -> Arrays:
        flow = self._flow(partial(self._setup.call, context=context), arrays, context.place)
        try:
            while True:
                response = dict(next(flow))
                if FOR_AUDIT in response:
                    previews += json.loads(response.pop(FOR_AUDIT)[0])
                adapter.send_more(sender, adapter.encode(response, self._setup.signature))
                self._holder.look(context.place)  # at most one more step is begun for a caller who leaves between two
        except StopIteration as stop:
            final: Arrays = stop.value
        if context.deadline is not None and time.monotonic() > context.deadline:
            raise DeadlineExceeded("the request's timeout ran out before its answer was sent; allow more time")
        final = self._recorded(context, arrays, final, previews)
        encoded = adapter.encode(final, self._setup.signature)
        self._holder.drop(context.place)
        adapter.send(sender, encoded)  # before the sampler hears, since nothing else ends a request whose pictures are decoded
        return final

    def _end(self, place: str, how: str) -> None:
        """Tells the sampler that a request has ended, as `outcome` calls it.

        Raises by what else it had ended before, which metrics have counted; of a request whose pictures were sent, nothing.
        """
        self._holder.drop(place)
        try:
            told = self._ask(End(place, how))
        except Exception:  # noqa: BLE001 - the sampler is stopping or gone
            return
        before = OUTCOMES[told.get("outcome", how)]
        if before is not None and before is not OUTCOMES[how] is not None:
            raise before(told["why"])

    def _recorded(
        self, context: adapter.Context, arrays: Arrays, final: Arrays, previews: Sequence[Mapping[str, Any]]
    ) -> Arrays:
        """The last response as its caller gets it, once it is in the audit log, where there is one."""
        made = self._recorder.made(context, arrays, json.loads(final[DETAILS][0]), previews)
        return {**final, DETAILS: json_tensor(made)}

    def _tell(self, context: adapter.Context, kind: Kind, arrays: Arrays, last: Arrays, failed: Exception | None) -> None:
        details = json.loads(last[DETAILS][0]) if failed is None and DETAILS in last else {}
        total_s = time.monotonic() - context.received
        self._metrics.answered(kind, total_s, details, failed)
        self._log.info(line(self._setup, context.id, total_s, arrays, details, failed))
