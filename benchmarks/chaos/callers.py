"""One call, as raw gRPC sees it, and what may be said of its answer. Nothing here is retried but what the server asks to retry."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from faceclip.wire import infer_arrays, infer_request
from faceclip_serving.contract.models import REQUEST_ID
from faceclip_serving.contract.names import CANCEL, STREAM
from faceclip_serving.contract.tensors import Array, bytes_tensor

from .requests import Kind, Task, Way

LIMIT_S = 90.0
"""Of one call: whoever has no answer by then is unanswered."""
PATIENCE_S = 300.0
"""Of one caller who is refused as busy again and again."""
_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # else all channels of a process are one connection
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]
_METADATA = (("triton_grpc_error", "true"),)
_IN_STREAM = "in the stream"
"""Instead of a status: Triton's own refusals of a stream's tensors come as a text among the answers (2.51)."""
_RETRY_AFTER = re.compile(r"retry after (\d+)")

BUSY, DRAINING, STOPPING, BROKEN = "busy", "draining", "stopping", "broken"
PICTURE, INVALID, CANCELLED, DEADLINE, SERVER_ERROR, UNANSWERED = (
    "picture", "invalid", "cancelled", "deadline", "server_error", "unanswered",
)  # fmt: skip
"""How a call ends, as its caller sees it."""


@dataclass
class Answer:
    """All that came back from one call."""

    status: str = "OK"
    """Name of gRPC's status."""
    text: str = ""
    pictures: list[str] = field(default_factory=list)
    """A digest of every last answer, of which there should be one; of `faceclip_faces` the faces."""
    late: int = 0
    """Answers after the last one."""
    steps: int = 0
    """Answers before it."""
    seconds: float = 0.0

    @property
    def kind(self) -> str:
        """How it ended."""
        if self.status == "OK":
            return PICTURE if self.pictures else UNANSWERED
        if self.status == "DEADLINE_EXCEEDED":
            return DEADLINE
        if re.search(r"[Ss]erver is stopping|Server not ready|has no available versions|the server is stopping", self.text):
            return STOPPING
        if self.status == "UNAVAILABLE":
            return DRAINING if "draining" in self.text else BUSY if "busy" in self.text else BROKEN
        if self.status == "CANCELLED":
            return DEADLINE if "timeout" in self.text else CANCELLED
        return INVALID if self.status in ("INVALID_ARGUMENT", _IN_STREAM) else SERVER_ERROR


class Caller:
    """A connection of its own. For one thread at a time."""

    def __init__(self, url: str) -> None:
        self._channel = grpc.insecure_channel(url, options=_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._url = url

    def close(self) -> None:
        self._channel.close()

    def ask(
        self,
        model: str,
        tensors: Mapping[str, Array],
        limit_s: float = LIMIT_S,
        leaving: tuple[Way, float] | None = None,
        over: threading.Event | None = None,
        after_steps: int = 0,
    ) -> Answer:
        """One call to its end. `leaving`: how its caller goes, and after how many seconds; `after_steps`: after so many of a stream's
        steps instead. `over`: it goes when that is set."""
        way, after_s = leaving or (None, 0.0)
        request = infer_request(model, tensors)
        if way is Way.TIMEOUT:
            request.parameters["timeout"].int64_param = max(1, int(after_s * 1e6))
        if way is Way.ID:
            request.id = f"{id(request)}-{time.monotonic_ns()}"
        if way is Way.DEADLINE:
            limit_s = after_s
        began = time.monotonic()
        if model == STREAM:
            call = self._stub.ModelStreamInfer(iter([request]), timeout=limit_s, metadata=_METADATA)
        else:
            call = self._stub.ModelInfer.future(request, timeout=limit_s)
        goes = way in (Way.CANCEL, Way.CLOSE, Way.ID)
        leave = threading.Timer(after_s, self._leave, (way, call, request.id)) if goes and not after_steps else None
        if leave is not None:
            leave.start()
        if over is not None:
            threading.Thread(target=self._leave_when, args=(over, call), daemon=True).start()
        answer = Answer()
        try:
            for response in call if model == STREAM else (call.result(),):
                if model != STREAM:
                    self._note(answer, response)
                elif response.error_message:
                    answer.status, answer.text = _IN_STREAM, response.error_message
                else:
                    self._note(answer, response.infer_response)
                    if after_steps and answer.steps == after_steps and not answer.pictures:
                        self._leave(way, call, request.id)
        except grpc.RpcError as error:
            answer.status, answer.text = error.code().name, error.details() or ""
        except grpc.FutureCancelledError:
            answer.status = "CANCELLED"
        answer.seconds = time.monotonic() - began
        if leave is not None:
            leave.cancel()
            leave.join()
        if way is Way.CLOSE:
            self.__init__(self._url)  # type: ignore[misc]  # the next call needs another connection
        return answer

    @staticmethod
    def _note(answer: Answer, response: Any) -> None:
        arrays = infer_arrays(response)
        if answer.pictures:
            answer.late += 1
        if "images" in arrays:
            answer.pictures.append(hashlib.sha256(b"".join(arrays["images"])).hexdigest())
        elif "details" in arrays:
            answer.pictures.append(json.dumps(json.loads(arrays["details"][0])["faces"]))
        else:
            answer.steps += 1

    @staticmethod
    def _leave_when(over: threading.Event, call: Any) -> None:
        while call.is_active() if hasattr(call, "is_active") else not call.done():
            if over.wait(0.5):
                call.cancel()

    def _leave(self, way: Way | None, call: Any, request_id: str) -> None:
        if way is Way.CANCEL:
            call.cancel()
        elif way is Way.CLOSE:
            self._channel.close()
        else:
            asked = infer_request(CANCEL, {REQUEST_ID.name: bytes_tensor([request_id.encode()])})
            del asked.inputs[-1], asked.raw_input_contents[-1]  # `image_encoding`, which it does not have
            with suppress(grpc.RpcError):
                self._stub.ModelInfer(asked, timeout=LIMIT_S)


@dataclass(frozen=True)
class Verdict:
    """What became of one task."""

    asked: Kind
    way: Way | None
    ended: str
    fault: str
    """What is wrong with that, in words; empty: nothing."""
    refused: int
    """How often it was refused as busy before, and came again."""
    seconds: float
    """Of its last attempt."""


def perform(caller: Caller, task: Task, right: Mapping[int, str]) -> Verdict:
    """Sends a task, again whenever the server is busy. `right`: number of a good request -> digest of its solo picture."""
    leaving = None if task.way is None else (task.way, task.after_s)
    began, refused = time.monotonic(), 0
    while True:
        answer = caller.ask(task.model, task.tensors, leaving=leaving, after_steps=task.after_steps)
        if answer.kind != BUSY or time.monotonic() - began > PATIENCE_S:
            return Verdict(task.kind, task.way, answer.kind, fault(task, answer, right), refused, answer.seconds)
        refused += 1
        hint = _RETRY_AFTER.search(answer.text)
        time.sleep((int(hint[1]) if hint else 1) * (1 + 0.25 * (refused % 3)))


DESERVED: Mapping[Kind, tuple[str, ...]] = {
    Kind.GOOD: (PICTURE,),
    Kind.BAD: (INVALID,),
    Kind.IMPOSSIBLE: (INVALID,),
    Kind.LEAVING: (PICTURE, CANCELLED, DEADLINE),
    Kind.DETAILING: (PICTURE, CANCELLED),
}
"""How a request may end. Whoever leaves may have been too late."""
ENDS_BY: Mapping[Way, tuple[str, ...]] = {
    Way.CANCEL: (PICTURE, CANCELLED),
    Way.CLOSE: (PICTURE, CANCELLED),
    Way.DEADLINE: (PICTURE, DEADLINE),
    Way.TIMEOUT: (PICTURE, DEADLINE),
    Way.ID: (PICTURE, CANCELLED),
}


def fault(task: Task, answer: Answer, right: Mapping[int, str]) -> str:
    """What is wrong with an answer; empty: nothing."""
    deserved = DESERVED[task.kind] if task.way is None else ENDS_BY[task.way]
    if answer.kind == UNANSWERED or (answer.kind == DEADLINE and answer.seconds >= LIMIT_S):
        return f"unanswered: {answer.status} after {answer.seconds:.0f} s and {answer.steps} steps"
    if answer.kind not in deserved:
        return f"{task.kind.value} request ended as {answer.kind} ({answer.status}): {answer.text[:300]}"
    if len(answer.pictures) > 1 or answer.late:
        return f"several answers: {len(answer.pictures)} last ones, {answer.late} after the last"
    if answer.kind == PICTURE and answer.pictures[0] != right[task.picture]:
        return f"wrong: another picture than request {task.picture} has alone"
    if task.word and task.word not in answer.text:
        return f"wrong words: expected '{task.word}' in: {answer.text[:300]}"
    return ""
