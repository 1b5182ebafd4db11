"""One end of a request, for its caller, the log and the sampler; and what stays of it in the process of a public model: nothing, without a
collection of garbage."""

import importlib
import json
import queue
import sys
import threading
import time
import types
import weakref
from unittest.mock import MagicMock

import numpy as np
import pytest

from faceclip_serving.audit.log import AuditLog
from faceclip_serving.contract import operations
from faceclip_serving.contract.errors import OUTCOMES, InvalidRequest, outcome
from faceclip_serving.contract.models import models
from faceclip_serving.contract.names import UNARY
from faceclip_serving.contract.operations import Admit, End
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.settings import resolve
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from tests.serving.audit.conftest import KEY, REFERENCES

SIGNATURES = models(TINY_SDXL)
ENDED = {"images": np.array([b"file"], object), "seeds": np.array([1]), "details": np.array([b'{"timings_s": {}}'], object)}


class Tensor:
    def __init__(self, name, array):
        self.name, self._array = name, array

    def as_numpy(self):
        return self._array


class Answer:
    """What an inner call comes back with."""

    def __init__(self, message="", **report):
        self.message, self.tensors = message, {"report": np.array([json.dumps(report).encode()], object)}

    def has_error(self):
        return bool(self.message)

    def error(self):
        return types.SimpleNamespace(message=lambda: self.message)


class TritonError:
    INVALID_ARG, UNAVAILABLE, CANCELLED, INTERNAL = range(4)

    def __init__(self, message, code):
        self.message = message


class Triton(types.ModuleType):
    """Its Python backend, as far as a front uses it. `refuses`: why the sampler admits nobody. `ended`: what it answers to an end.
    `asked`: what it was asked."""

    Tensor, TritonError, MetricFamily, PreferredMemory = Tensor, TritonError, MagicMock(), MagicMock()
    TRITONSERVER_MEMORY_CPU = TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    refuses = ""

    def __init__(self, name):
        super().__init__(name)
        self.ended, self.asked = {"ended": True}, []

    @staticmethod
    def InferenceResponse(tensors=(), error=None):
        return "ok" if error is None else error.message

    def InferenceRequest(self, model_name, inputs, **_):
        asked = operations.decode(next(each.as_numpy() for each in inputs if each.name == "control"))
        self.asked.append(asked)
        refuses = self.refuses and isinstance(asked, Admit)
        report = self.ended if isinstance(asked, End) else {"place": "p", "gone": [], "round_s": 0.0}
        answer = Answer(self.refuses) if refuses else Answer(**report)
        return types.SimpleNamespace(exec=lambda: answer)

    @staticmethod
    def get_output_tensor_by_name(response, name):
        return Tensor(name, response.tensors[name]) if name in response.tensors else None

    @staticmethod
    def get_input_tensor_by_name(request, name):
        return request.tensors.get(name)


class Sender:
    def __init__(self):
        self.sent, self.told = threading.Event(), []

    def is_cancelled(self):
        return False

    def send(self, response, flags=0):
        self.told.append(response)
        self.sent.set()


class Request:
    """A caller's, with a photograph."""

    def __init__(self, timeout_us=0):
        self.sender, self._timeout_us = Sender(), timeout_us
        values = {"prompt": np.array([b"a portrait"], object), "face_images": np.array([b"a photograph"], object)}
        self.tensors = {name: Tensor(name, value) for name, value in values.items()}

    def parts(self):
        return [weakref.ref(each) for each in (self, self.sender, self.tensors["face_images"].as_numpy())]

    def get_response_sender(self):
        return self.sender

    def request_id(self):
        return "id"

    def timeout(self):
        return self._timeout_us

    def parameters(self):
        return ""


@pytest.fixture
def triton(monkeypatch):
    stub = Triton("triton_python_backend_utils")
    monkeypatch.setitem(sys.modules, stub.__name__, stub)
    names = [f"faceclip_serving.models.{name}" for name in ("adapter", "metrics", "front")]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in names:
        importlib.import_module(name)
    yield stub
    for name in names:
        del sys.modules[name]


@pytest.fixture
def serve(triton, tmp_path, uncollected):
    """Serves one request by a flow; what its caller is told, and what is alive of it soon after, while no garbage is collected."""
    adapter, front = (sys.modules[f"faceclip_serving.models.{name}"] for name in ("adapter", "front"))
    settings = resolve(CPU, "faceclip", {})
    setup = adapter.Setup(
        TINY_SDXL, CPU, SIGNATURES[UNARY], tmp_path, "digest", settings, "faceclip", SIGNATURES, "secret"
    )  # fmt: skip
    made = front.Front(setup, lambda call, arrays, place: made.flow())

    def serve(flow, timeout_us=0):
        made.flow = flow
        request = Request(timeout_us)
        parts, sent, told = request.parts(), request.sender.sent, request.sender.told
        made.accept(request)
        del request
        assert sent.wait(30)
        deadline = time.monotonic() + 5
        while any(part() is not None for part in parts) and time.monotonic() < deadline:
            time.sleep(0.01)
        return told, [part() for part in parts if part() is not None]

    serve.front = made
    yield serve
    made.stop()


def made():
    yield from ()
    return dict(ENDED)


def refused():
    yield from ()
    raise InvalidRequest("face_images[0]: no face")


@pytest.mark.parametrize(("flow", "told"), [(made, "ok"), (refused, "face_images[0]: no face")])
def test_nothing_stays_of_a_request_that_is_over(serve, flow, told):
    assert serve(flow) == ([told], [])


def late():
    time.sleep(0.1)
    return (yield from made())


def test_pictures_that_are_ready_after_the_time_has_run_out_are_not_sent(serve, triton):
    assert serve(late, timeout_us=50_000) == (["the request's timeout ran out before its answer was sent; allow more time"], [])
    assert [asked.outcome for asked in triton.asked if isinstance(asked, End)] == ["deadline"]


def test_nothing_stays_of_a_request_that_the_sampler_had_ended_before(serve, triton):
    triton.ended = {"ended": False, "outcome": "deadline", "why": "the request's timeout ran out"}
    assert serve(refused) == (["the request's timeout ran out"], [])


def test_nothing_stays_of_a_request_that_gets_no_place(serve, triton):
    triton.refuses = "Busy|busy: retry after 3 s"
    assert serve(made) == (["busy: retry after 3 s"], [])


def test_nothing_stays_of_a_request_that_could_not_be_recorded(serve, tmp_path, monkeypatch):
    recorder = serve.front._recorder
    recorder._log, recorder._references = AuditLog(tmp_path / "audit", KEY), REFERENCES
    monkeypatch.setattr(AuditLog, "_append", lambda *_: 1 / 0)
    told, alive = serve(made)
    assert "nothing is answered that cannot be recorded" in told[0] and not alive


@pytest.fixture
def ends(serve, triton):
    """Serves one request by a flow; how its caller, the log and the front's metrics were told that it ended, and the sampler."""

    def ends(flow):
        lines, counted = queue.Queue(), []

        def answered(kind, seconds, details, failed):
            counted.append(outcome(failed))

        front = serve.front
        front._log = types.SimpleNamespace(info=lines.put)
        front._metrics = types.SimpleNamespace(answered=answered, arrived=lambda: None)
        front.flow, request = flow, Request()
        front.accept(request)
        logged = json.loads(lines.get(timeout=30))["outcome"]
        sampler = [each.outcome for each in triton.asked if isinstance(each, End)]
        return request.sender.told, [logged], counted, sampler

    return ends


@pytest.mark.parametrize("first", [*filter(OUTCOMES.get, OUTCOMES)])
def test_who_ended_a_request_first_decides_what_caller_and_log_are_told(ends, triton, first):
    triton.ended = {"ended": False, "outcome": first, "why": "the sampler's reason"}
    told, logged, counted, _ = ends(refused)
    expected = "face_images[0]: no face" if first == "invalid" else "the sampler's reason"
    assert len(told) == 1 and told[0].endswith(expected)
    assert logged == counted == [first]


def test_an_end_that_the_sampler_knows_no_reason_of_is_the_fronts(ends, triton):
    triton.ended = {"ended": False}
    assert ends(refused) == (["face_images[0]: no face"], ["invalid"], ["invalid"], ["invalid"])


def wrong_last():
    yield from ()
    return {**ENDED, "seeds": np.array(["no number"])}


def wrong_step():
    yield {"progress": np.array([1.5])}
    return dict(ENDED)


@pytest.mark.parametrize("flow", [wrong_last, wrong_step])
def test_an_answer_that_cannot_be_encoded_is_an_error_to_all(ends, flow):
    told, *others = ends(flow)
    assert len(told) == 1 and told[0] != "ok"
    assert others == [["error"]] * 3


def test_an_answer_that_cannot_be_sent_is_an_error_to_all(ends, monkeypatch):
    def send(self, response, flags=0, usual=Sender.send):
        if response == "ok":
            raise MemoryError("Failed to increase the shared memory pool size")
        usual(self, response, flags)

    monkeypatch.setattr(Sender, "send", send)
    told, *others = ends(made)
    assert told == ["MemoryError: Failed to increase the shared memory pool size"]
    assert others == [["error"]] * 3
