"""What the sampler answers: whole runs, runs that are followed step by step, and questions about itself.

The streaming model lives in another process, so it follows a run by asking: `start`, then `watch` until the run has ended, each
watch answered at the next step. A run whose follower stops asking is cancelled. `Reply` is how an answer gets back, from
whichever thread has it; nothing here knows of Triton.

Operations, in the `control` tensor as JSON; without one a request is a whole run:
- `{"op": "admit"}` -> `{"reservation": n}`: a place for a request that is about to come, or `Busy`
- `{"op": "start", "previews": bool}` with a job -> `{"run": id}`
- `{"op": "watch", "run": id}` -> the next step that was not heard, or the run's end with its latents
- `{"op": "cancel", "run": id}`, `{"op": "release", "reservation": n}`
- `{"op": "status"}`, `{"op": "drain", "on": bool}` -> `Service.status`
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..contract.errors import Busy, InvalidRequest
from ..contract.job import Job
from ..contract.tensors import Array, json_tensor
from ..contract.variant import Variant
from ..face.references import odd_ones_out
from .admission import Admission
from .loop import Event, Failed, Finished, StepLoop, Stepped, Task
from .pictures import start_pictures

FOLLOWER_LOST_S = 30.0
"""A followed run that nobody has asked about for so long is cancelled."""

MOST_UNHEARD = 128
"""Steps that are kept for a follower who is slower than the run; beyond, the oldest are forgotten. The end never is."""


class Reply(Protocol):
    """The way back to one caller; exactly one of the two is called, once."""

    def send(self, arrays: Mapping[str, Array]) -> None: ...

    def refuse(self, error: Exception) -> None: ...


@dataclass(eq=False)
class Run:
    """A run that is followed step by step."""

    task: Task
    job: Job
    unheard: deque[Event] = field(default_factory=lambda: deque(maxlen=MOST_UNHEARD))
    """Events that the follower has not asked for yet, in order."""
    watcher: Reply | None = None
    asked_at: float = field(default_factory=time.monotonic)


class Service:
    """Owns the step loop and everything in flight. `handle` may be called from any thread."""

    def __init__(
        self,
        variant: Variant,
        digest: str,
        loop: StepLoop,
        admission: Admission,
        on_end: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._variant = variant
        self._digest = digest
        self._loop = loop
        self._admission = admission
        self._on_end = on_end
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()
        self._operations = {
            "run": self._run,
            "start": self._start,
            "watch": self._watch,
            "cancel": self._cancel,
            "admit": self._admit,
            "release": self._release,
            "drain": self._drain,
            "status": self._status,
        }

    def handle(self, arrays: Mapping[str, Array], reply: Reply) -> None:
        """Answers one request, now or when its run has got there."""
        try:
            control = json.loads(arrays["control"][0]) if "control" in arrays else {"op": "run"}
            operation = self._operations.get(control["op"])
            if operation is None:
                raise InvalidRequest(f"control: unknown operation '{control['op']}'")
            operation(control, arrays, reply)
        except Exception as error:  # noqa: BLE001 - every failure becomes that request's own error response
            reply.refuse(error)

    def _run(self, control: Mapping[str, Any], arrays: Mapping[str, Array], reply: Reply) -> None:
        def listen(event: Event) -> None:
            if isinstance(event, Finished):
                reply.send(_result(job, event))
            elif isinstance(event, Failed):
                reply.refuse(event.error)

        job = self._job(arrays)
        self._loop.submit(self._task(job, arrays, listen))

    def _start(self, control: Mapping[str, Any], arrays: Mapping[str, Array], reply: Reply) -> None:
        identity = uuid.uuid4().hex
        job = self._job(arrays)
        self._forget_ended()

        def listen(event: Event) -> None:
            with self._lock:
                run = self._runs.get(identity)
                if run is None:
                    return
                run.unheard.append(event)
            self._answer_watcher(identity)
            if run.watcher is None and time.monotonic() - run.asked_at > FOLLOWER_LOST_S:
                run.task.cancelled = True

        task = self._task(job, arrays, listen)
        task.wants_steps, task.wants_previews = True, bool(control.get("previews"))
        with self._lock:
            self._runs[identity] = Run(task, job)
        self._loop.submit(task)
        reply.send({"report": json_tensor({"run": identity})})

    def _watch(self, control: Mapping[str, Any], arrays: Mapping[str, Array], reply: Reply) -> None:
        with self._lock:
            run = self._runs.get(control["run"])
            if run is None:
                raise InvalidRequest("control: no such run; it has ended, or was cancelled because nobody followed it")
            run.watcher = reply
            run.asked_at = time.monotonic()
        self._answer_watcher(control["run"])

    def _answer_watcher(self, identity: str) -> None:
        """Tells the waiting follower of a run the next thing that it has not heard, if there is any."""
        with self._lock:
            run = self._runs.get(identity)
            if run is None or run.watcher is None or not run.unheard:
                return
            reply, event = run.watcher, run.unheard.popleft()
            run.watcher = None
            run.asked_at = time.monotonic()
            if not isinstance(event, Stepped):
                del self._runs[identity]
        if isinstance(event, Stepped):
            progress = {"step": event.step, "total": event.total, "timestep": event.timestep}
            latents = {} if event.latents is None else {"latents": event.latents}
            reply.send({"report": json_tensor(progress), **latents})
        elif isinstance(event, Finished):
            reply.send(_result(run.job, event))
        else:
            reply.refuse(event.error)

    def _cancel(self, control: Mapping[str, Any], arrays: Mapping[str, Array], reply: Reply) -> None:
        with self._lock:
            run = self._runs.get(control["run"])
        if run is not None:
            run.task.cancelled = True
        reply.send({"report": json_tensor({"cancelled": run is not None})})

    def _admit(self, control: Mapping[str, Any], arrays: Mapping[str, Array], reply: Reply) -> None:
        try:
            reservation = self._admission.reserve()
        except Busy as error:
            self._on_end(Failed(error))
            raise
        reply.send({"report": json_tensor({"reservation": reservation})})

    def _release(self, control: Mapping[str, Any], arrays: Mapping[str, Array], reply: Reply) -> None:
        self._admission.release(control["reservation"])
        reply.send({"report": json_tensor({})})

    def _drain(self, control: Mapping[str, Any], arrays: Mapping[str, Array], reply: Reply) -> None:
        self._admission.drain(bool(control.get("on", True)))
        self._status(control, arrays, reply)

    def _status(self, control: Mapping[str, Any], arrays: Mapping[str, Array], reply: Reply) -> None:
        reply.send({"report": json_tensor(self.status())})

    def status(self) -> dict[str, Any]:
        """What a probe asks. `stalled_s`: seconds since the loop came round last, 0 while it has nothing to do."""
        admission = self._admission
        return {
            "in_flight": admission.in_flight,
            "draining": admission.draining,
            "threads_alive": self._loop.threads_alive,
            "stalled_s": round(self._loop.stalled_s, 3),
            "max_active": admission.max_active,
            "max_waiting": admission.max_waiting,
        }

    def _job(self, arrays: Mapping[str, Array]) -> Job:
        job = Job.decode(arrays["job"], self._digest)
        job.stamp("conditioned")
        return job

    def _task(self, job: Job, arrays: Mapping[str, Array], listener: Callable[[Event], None]) -> Task:
        """A task that gives its place back when it ends."""
        number = self._admission.enter(job.reservation)
        if job.reservation is not None:
            job.reservation = number  # another one if the first had expired

        def listen(event: Event) -> None:
            if isinstance(event, Finished | Failed):
                ok = isinstance(event, Finished)
                decoding = ok and job.reservation is not None  # it came through `prepare`, so `finish` releases it
                self._admission.leave(number, time.monotonic() - task.since if ok else None, decoding)
                job.stamp("denoised")
            listener(event)
            if isinstance(event, Finished | Failed):
                self._on_end(event)

        try:
            if job.face_weights and self._variant.identity.name in arrays:
                job.warnings += odd_ones_out(arrays[self._variant.identity.name])
            conditioning = {tensor.name: arrays[tensor.name] for tensor in self._variant.conditioning}
            pictures = start_pictures(self._variant, job, conditioning)
        except Exception:
            self._admission.leave(number)
            raise
        task = Task(pictures, listen, job.request.priority, job.deadline)
        return task

    def _forget_ended(self) -> None:
        """Drops the results of runs that ended after their follower was gone."""
        now = time.monotonic()
        with self._lock:
            for identity, run in list(self._runs.items()):
                ended = run.unheard and isinstance(run.unheard[-1], Finished | Failed)
                if ended and now - run.asked_at > FOLLOWER_LOST_S:
                    del self._runs[identity]


def _result(job: Job, event: Finished) -> dict[str, Array]:
    job.sampling = event.usage.report()
    return {"latents": event.latents, "report": job.encode()}
