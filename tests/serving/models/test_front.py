"""What stays of a request in the process of a public model once its end was told: nothing, without a collection of garbage."""

import importlib
import json
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
from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.models import models
from faceclip_serving.contract.names import UNARY
from faceclip_serving.contract.operations import Admit
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
    """Its Python backend, as far as a front uses it. `refuses`: the operation that the sampler refuses, in words."""

    Tensor, TritonError, MetricFamily, PreferredMemory = Tensor, TritonError, MagicMock(), MagicMock()
    TRITONSERVER_MEMORY_CPU = TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    refuses = ""

    @staticmethod
    def InferenceResponse(tensors=(), error=None):
        return "ok" if error is None else error.message

    def InferenceRequest(self, model_name, inputs, **_):
        asked = operations.decode(next(each.as_numpy() for each in inputs if each.name == "control"))
        refuses = self.refuses and isinstance(asked, Admit)
        answer = Answer(self.refuses) if refuses else Answer(place="p", gone=[], round_s=0.0)
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

    def __init__(self):
        self.sender = Sender()
        values = {"prompt": np.array([b"a portrait"], object), "face_images": np.array([b"a photograph"], object)}
        self.tensors = {name: Tensor(name, value) for name, value in values.items()}

    def parts(self):
        return [weakref.ref(each) for each in (self, self.sender, self.tensors["face_images"].as_numpy())]

    def get_response_sender(self):
        return self.sender

    def request_id(self):
        return "id"

    def timeout(self):
        return 0

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

    def serve(flow):
        made.flow = flow
        request = Request()
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


def test_nothing_stays_of_a_request_that_gets_no_place(serve, triton):
    triton.refuses = "Busy|busy: retry after 3 s"
    assert serve(made) == (["busy: retry after 3 s"], [])


def test_nothing_stays_of_a_request_that_could_not_be_recorded(serve, tmp_path, monkeypatch):
    recorder = serve.front._recorder
    recorder._log, recorder._references = AuditLog(tmp_path / "audit", KEY), REFERENCES
    monkeypatch.setattr(AuditLog, "_append", lambda *_: 1 / 0)
    told, alive = serve(made)
    assert "nothing is answered that cannot be recorded" in told[0] and not alive
