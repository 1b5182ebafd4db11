"""Last step of the ensemble: checks, marks and encodes pictures, and the report. One request at a time, of each tenant in turn."""

from __future__ import annotations

from functools import partial
from typing import Any

from faceclip_serving.checks.policy import PICTURES
from faceclip_serving.contract.job import Job
from faceclip_serving.contract.tensors import Array
from faceclip_serving.models import adapter
from faceclip_serving.models.checks import checks_of
from faceclip_serving.models.finish import finish
from faceclip_serving.models.lanes import Lanes, Task, due
from faceclip_serving.models.marks import marker_of


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self._setup = setup = adapter.setup(args)
        marker, checks = marker_of(setup.settings, setup.variant), checks_of(setup.settings, PICTURES)
        self._finish = partial(finish, setup.variant, setup.placement, setup.digest, marker, checks=checks)
        self._lanes = Lanes(1)

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            try:
                arrays = adapter.decode(request, self._setup.signature)
                job = Job.decode(arrays["report"], self._setup.digest)
            except Exception as error:  # noqa: BLE001 - every failure becomes that request's own error response
                adapter.send(sender, adapter.failure(error, request))
                continue
            work, give_up = partial(self._serve, request, sender, arrays), partial(_give_up, request, sender)
            when = due(job.clock["received"], job.request.priority, self._setup.settings["batch_head_start_s"])
            self._lanes.submit(Task(job.place, job.request.tenant, True, work, give_up, when))

    def _serve(self, request: Any, sender: Any, arrays: dict[str, Array], task: Task) -> None:
        try:
            response = adapter.encode(self._finish(arrays), self._setup.signature)
        except Exception as error:  # noqa: BLE001 - the same
            response = adapter.failure(error, request)
        if task.may_answer():
            adapter.send(sender, response)

    def finalize(self) -> None:
        self._lanes.stop()


def _give_up(request: Any, sender: Any) -> None:
    """Where the thread was to end within the work, as code of an operator's own may want."""
    adapter.send(sender, adapter.failure(RuntimeError("the pictures could not be finished"), request))
