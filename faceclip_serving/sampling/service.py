"""What the sampler answers: whole runs, runs that are followed step by step, and operations (`contract/operations.py`).

The streaming model lives in another process, so it follows a run by asking: `Start`, then `Follow` until the run has ended, each
answered at the next step. `Reply` is how an answer gets back, from whichever thread has it; nothing here knows of Triton.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from ..contract import operations
from ..contract.callers import Caller, check_own
from ..contract.errors import OUTCOMES, Cancelled, InvalidRequest, outcome
from ..contract.job import Job
from ..contract.models import CONTROL, FACE_CROPS, JOB, LATENT_MASK
from ..contract.names import FACE_ENCODER, SAMPLER
from ..contract.operations import (
    FOR_OPERATORS,
    Admit,
    Cancel,
    Describe,
    Drain,
    End,
    Follow,
    Leave,
    Lost,
    Operation,
    Prepare,
    Prepared,
    Renew,
    Start,
    Status,
)
from ..contract.settings import Settings
from ..contract.tensors import Array, json_tensor
from ..contract.variants.variant import Variant
from ..face.budget import WithinBudget
from ..face.detectors import Detector
from ..face.familiarity import FEATURE, FaceStatistics
from ..face.references import names_of, odd_ones_out
from ..face.search import find_faces
from .detail import Detail, detail_request
from .life import Lives
from .loop import StepLoop, Stepped, Work
from .networks import Described, Drawn, Networks, encode, people_of, source_of
from .pictures import start_pictures
from .requests import Ended
from .schedule import is_known, start_schedule
from .threads import Threads

Event = Stepped | Drawn | Described | Ended


class Reply(Protocol):
    """The way back to one caller; exactly one of the two is called, once."""

    def send(self, arrays: Mapping[str, Array]) -> None: ...

    def refuse(self, error: Exception) -> None: ...


class Follower:
    """What a run that is followed has to say, and who waits for it. May be called from any thread.

    Steps that were not heard are kept in order, previews of the last few alone.
    """

    def __init__(self, job: Job, previews_kept: int) -> None:
        """`previews_kept`: of steps that were not heard. A preview is a picture's latents: a megabyte for a large one."""
        self._job = job
        self._previews_kept = previews_kept
        self._unheard: deque[Event] = deque()
        self._watcher: Reply | None = None
        self._over = False
        self._lock = threading.Lock()

    def hear(self, event: Event) -> None:
        """An event of the run."""
        with self._lock:
            self._unheard.append(event)
            earlier = -self._previews_kept - 1
            if (
                isinstance(event, Stepped)
                and len(self._unheard) >= -earlier
                and isinstance(old := self._unheard[earlier], Stepped)
            ):
                self._unheard[earlier] = replace(old, latents=None)
        if (error := self._answer()) is not None:
            raise error

    def ask(self, watcher: Reply) -> Exception | None:
        """Somebody wants the next event. Why it could not be sent, if it is there and could not; the run is over then.

        Raises `InvalidRequest` after the last one.
        """
        with self._lock:
            if self._over:
                raise InvalidRequest("control: the run has ended, and its end was told")
            before, self._watcher = self._watcher, watcher
        if before is not None:
            before.refuse(Cancelled("another watcher follows this run now"))
        return self._answer()

    def _answer(self) -> Exception | None:
        """Sends what there is to whom waits. What cannot be sent ends the run, and whoever waits hears why: nobody else would."""
        with self._lock:
            if self._watcher is None or not self._unheard:
                return None
            watcher, self._watcher = self._watcher, None
            event = self._unheard.popleft()
            self._over = not isinstance(event, Stepped)
        try:
            if isinstance(event, Stepped):
                progress = {"step": event.step, "total": event.total, "timestep": event.timestep}
                latents = {} if event.latents is None else {"latents": event.latents}
                watcher.send({"report": json_tensor(progress), **latents})
            else:
                _answer(watcher, self._job, event)
        except Exception as error:  # noqa: BLE001 - an encoding, too little shared memory
            with self._lock:
                self._over = True
                self._unheard.clear()
            watcher.refuse(error)
            return error
        return None


class Service:
    """The sampler's answers. `handle` may be called from any thread."""

    def __init__(
        self,
        variant: Variant,
        digest: str,
        loop: StepLoop,
        lives: Lives,
        threads: Threads,
        networks: Networks,
        forgetful: Networks,
        settings: Settings,
        detector: Callable[[], Detector],
        known_faces: FaceStatistics | None = None,
    ) -> None:
        """`forgetful`: the networks without memory, for requests that want to leave no trace. `detector`: seeks faces in pictures.
        `known_faces`: by which the unfamiliar are known; None: of none it is told."""
        self._variant = variant
        self._digest = digest
        self._loop = loop
        self._lives = lives
        self._threads = threads
        self._networks = networks
        self._forgetful = forgetful
        self._settings = settings
        self._detector = detector
        self._known_faces = known_faces
        self._followers: dict[str, Follower] = {}
        self._operations: Mapping[type[Any], Callable[[Any, Mapping[str, Array]], dict[str, Any]]] = {
            Admit: self._admit,
            Start: self._start,
            Renew: lambda asked, _: {"gone": lives.renew(asked.places), "round_s": loop.round_s},
            Prepare: self._prepare,
            Prepared: self._prepared,
            Lost: lambda asked, _: {"lost": lives.lost(asked.places)},
            End: self._end,
            Leave: self._leave,
            Cancel: lambda asked, _: {"ended": lives.cancel(asked.id)},
            Drain: self._drain,
            Status: lambda *_: self.status(),
        }

    def handle(self, arrays: Mapping[str, Array], reply: Reply, who: Caller) -> None:
        """Answers one request, now or when its run has got there. `who` sent it."""
        try:
            asked = operations.decode(arrays["control"]) if "control" in arrays else None
            if not (who is Caller.OPERATOR and isinstance(asked, FOR_OPERATORS)):
                check_own(SAMPLER, who)
            if asked is None:
                job = Job.decode(arrays["job"], self._digest)
                self._enter(job, arrays, lambda event: _answer(reply, job, event), follows=False, previews=False)
                return
            if isinstance(asked, Follow):
                self._follow(asked, reply)
                return
            if isinstance(asked, Describe):
                self._describe(asked, arrays, reply)
                return
        except Exception as error:  # noqa: BLE001 - every failure becomes that request's own error response
            reply.refuse(error)
        else:
            self._answered(asked, arrays, reply)

    def _answered(self, asked: Operation, arrays: Mapping[str, Array], reply: Reply) -> None:
        try:
            answer = self._operations[type(asked)](asked, arrays)
        except Exception as error:  # noqa: BLE001 - the same
            reply.refuse(error)
        else:
            reply.send({"report": json_tensor(answer)})

    def ended(self, place: str) -> None:
        """A request is over, so its follower goes. Whoever asks for it later is told why by `Lives`."""
        self._followers.pop(place, None)

    def _start(self, asked: Start, arrays: Mapping[str, Array]) -> dict[str, Any]:
        job = Job.decode(arrays["job"], self._digest)
        follower = self._followers[job.place] = Follower(job, self._settings["previews_kept"])
        try:
            self._enter(job, arrays, follower.hear, follows=True, previews=asked.previews)
        except Exception:
            self._followers.pop(job.place, None)
            raise
        return {"place": job.place}

    def _follow(self, asked: Follow, reply: Reply) -> None:
        follower = self._followers.get(asked.place)
        if follower is None:
            raise self._lives.why(asked.place) or InvalidRequest("control: no such run; it has ended, and its end was told")
        if (error := follower.ask(reply)) is not None:
            self._lives.give_up(asked.place, error)

    def _describe(self, asked: Describe, arrays: Mapping[str, Array], reply: Reply) -> None:
        run = (self._networks if asked.remember else self._forgetful)[FACE_ENCODER]
        faces = {FACE_CROPS.name: arrays[FACE_CROPS.name]}

        def answer(event: Event) -> None:
            if isinstance(event, Described):
                reply.send({**event.features, "report": json_tensor({})})
            elif isinstance(event, Ended):
                reply.refuse(event.error)

        self._lives.enter(asked.place, lambda: Described(run(faces)), answer, asked.priority)

    def _admit(self, asked: Admit, arrays: Mapping[str, Array]) -> dict[str, Any]:
        return {"place": self._lives.admit(asked.id, asked.tenant, asked.deadline).place}

    def _prepare(self, asked: Prepare, arrays: Mapping[str, Array]) -> dict[str, Any]:
        self._lives.prepare(asked.place)
        return {}

    def _prepared(self, asked: Prepared, arrays: Mapping[str, Array]) -> dict[str, Any]:
        self._lives.prepared(asked.place)
        return {}

    def _end(self, asked: End, arrays: Mapping[str, Array]) -> dict[str, Any]:
        if asked.outcome not in OUTCOMES:
            raise InvalidRequest(f"control: 'end', 'outcome': expected one of {', '.join(OUTCOMES)}, got '{asked.outcome}'")
        kind = OUTCOMES[asked.outcome]
        error = None if kind is None else kind(f"ended by the holder of its place: {asked.outcome}")
        ended = self._lives.end(asked.place, error)
        why = None if ended else self._lives.why(asked.place)
        return {"ended": ended, **({} if why is None else {"outcome": outcome(why), "why": str(why)})}

    def _leave(self, asked: Leave, arrays: Mapping[str, Array]) -> dict[str, Any]:
        return {"ended": [place for place in asked.places if self._lives.leave(place)]}

    def _drain(self, asked: Drain, arrays: Mapping[str, Array]) -> dict[str, Any]:
        self._lives.drain(asked.on, asked.cut, asked.linger_s)
        return self.status()

    def status(self) -> dict[str, Any]:
        """What a probe asks. `stalled_s`: seconds since the loop came round last, or that a stage or a message
        has been at the same."""
        counts = self._lives.counts()
        return {
            "in_flight": counts.in_flight,
            "active": counts.active,
            "waiting": counts.waiting,
            "decoding": counts.decoding,
            "finishing": counts.finishing,
            "leaving": counts.leaving,
            "draining": self._lives.draining,
            "threads_alive": self._threads.alive and not self._lives.over,
            "stalled_s": round(max(self._loop.stalled_s, self._lives.longest_s), 3),
            "settings": dict(self._settings),
        }

    def _enter(
        self, job: Job, arrays: Mapping[str, Array], listener: Callable[[Event], None], follows: bool, previews: bool
    ) -> None:
        """The job's pictures wait to be drawn. Raises `InvalidRequest` where the schedule cannot be run."""

        def begin() -> Work:
            encoded = encode(self._variant, self._networks if job.request.remember else self._forgetful, prepared)
            job.stamp("conditioned")
            of_faces = encoded[self._variant.identity.name]
            for faces in job.people or [list(range(len(job.face_weights)))]:
                job.warnings += odd_ones_out(of_faces[faces], faces)
            if self._known_faces is not None and job.faces:
                job.warnings += self._known_faces.warnings(encoded[FEATURE], names_of(job.faces))
            conditioning = {tensor.name: encoded[tensor.name] for tensor in self._variant.conditioning}
            people = people_of(prepared)
            pictures = start_pictures(self._variant, job, conditioning, source_of(self._forgetful, job, prepared), people)
            if not job.request.face_detail:
                return Work(pictures, wants_steps=follows, wants_previews=previews)
            detect = WithinBudget(self._detector(), math.inf, job.deadline, lambda: bool(self._lives.lost([job.place])))
            mask = prepared.get(LATENT_MASK.name)
            wanted = partial(self._lives.ask_wanted, job.place)
            search = partial(find_faces, detect=detect)
            detail = Detail(self._variant, job, conditioning, self._forgetful, search, mask, people, follows, previews, wanted)
            return Work(pictures, follows, previews, after=detail.steps, look=detail.look)

        prepared = {name: array for name, array in arrays.items() if name not in (JOB.name, CONTROL.name)}
        wanted = [job, *([detail_request(self._variant, job)] if job.request.face_detail else [])]

        def look_up() -> None:
            for each in wanted:
                start_schedule(self._variant, each.request, each.begin)

        try:
            if known := all(is_known(self._variant, each.request, each.begin) for each in wanted):
                look_up()
        except Exception as error:
            self._lives.give_up(job.place, error)
            raise
        self._lives.enter(job.place, begin, listener, job.request.priority, None if known else look_up)


def _answer(reply: Reply, job: Job, event: Event) -> None:
    """The last thing that a caller hears."""
    if isinstance(event, Drawn):
        job.sampling = event.usage.report()
        job.clock |= {"begun": event.usage.began, "denoised": event.usage.ended}
        job.stamp("decoded")
        if event.usage.decoded:
            job.clock |= {"decoded": event.usage.decoded, "detailed": job.clock["decoded"]}
        reply.send({"image": event.image, "report": job.encode()})
    elif isinstance(event, Ended):
        reply.refuse(event.error)
