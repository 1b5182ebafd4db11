"""A request's life on a real server: callers who leave in every state, refusals beside slow preparation, one answer for each."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import numpy as np
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from export.paths import PHOTOGRAPH
from faceclip import FaceCLIPPipeline, InvalidRequestError, ServerBusyError
from faceclip_serving.contract.operations import Admit, End
from server.control import ask
from server.probe import tensor_input

from .callers import LONG, Stream, crowd, metrics, places, status, until


@pytest.fixture
def idle(server):
    until(lambda: status(server)["in_flight"] == 0)
    yield
    until(lambda: status(server)["in_flight"] == 0)


def test_a_caller_who_leaves_while_the_photograph_is_prepared_gives_the_place_back(server, idle):
    photo = crowd()
    streams = [Stream(server.url, face_images=photo) for _ in range(6)]
    until(lambda: status(server)["waiting"] == 6)
    for stream in streams:
        stream.leave()
    until(lambda: status(server)["in_flight"] == 0, 30)


def test_a_caller_who_leaves_while_waiting_for_a_turn_gives_the_place_back(server, idle):
    streams = [Stream(server.url, **LONG) for _ in range(11)]
    until(lambda: status(server)["active"] == 8 and status(server)["waiting"] == 3)
    for stream in streams[8:]:
        stream.leave()
    until(lambda: status(server)["in_flight"] == status(server)["active"] == 8, 30)  # those who stayed go on
    for stream in streams[:8]:
        stream.leave()
    until(lambda: status(server)["in_flight"] == 0, 30)

    def load():
        found = metrics(server)
        return found["faceclip_active_requests"], found["faceclip_waiting_requests"]

    until(lambda: load() == (0, 0), 30)


@pytest.mark.proof
def test_a_full_server_refuses_while_all_preparers_are_busy(server, pipe, idle):
    """The refusal comes before any of the photographs is done: nobody waits for others' photographs to hear a no."""
    photo, done = crowd(), threading.Event()

    def doomed():
        with pytest.raises(InvalidRequestError, match="no face"), FaceCLIPPipeline.from_pretrained(server.url) as own:
            own("a portrait", face_image=photo)
        done.set()

    with ThreadPoolExecutor(6) as callers:
        with places(server.connection, 34):
            slow = [callers.submit(doomed) for _ in range(6)]
            until(lambda: status(server)["in_flight"] == 40)
            with pytest.raises(ServerBusyError) as refused:
                pipe("a portrait", face_image=photo, retries=0)
            assert not done.is_set() and refused.value.retry_after_s >= 1
        for each in slow:
            each.result()


def test_every_outcome_is_counted_once(server, pipe, idle):
    def counted():
        found = metrics(server)
        return {name: value for name, value in found.items() if name.startswith("faceclip_requests_total")}

    before = counted()
    pipe("a portrait", num_inference_steps=1)
    with pytest.raises(InvalidRequestError):
        pipe("a portrait", num_inference_steps=0)
    stream = pipe.stream("a portrait", num_inference_steps=200)
    next(stream)
    stream.close()
    *_, _last = pipe.stream("a portrait", num_inference_steps=1)

    def more():
        return {
            name.split('"')[1]: value - before.get(name, 0) for name, value in counted().items() if value != before.get(name, 0)
        }

    until(lambda: sum(more().values()) >= 4)
    time.sleep(1.5)  # whatever might count a second time
    assert more() == {"ok": 2, "invalid": 1, "cancelled": 1}


@pytest.mark.proof
def test_a_request_for_faces_that_was_ended_by_its_id_is_not_answered_and_counted_as_its_caller_was_told(server, idle):
    """At whatever moment: it draws nothing, so only the sampler's word tells which was first."""
    photo, told = PHOTOGRAPH.read_bytes(), {"cancelled": 0, "ok": 0}

    def counted():
        found = metrics(server)
        return {outcome: found.get(f'faceclip_requests_total{{outcome="{outcome}"}}', 0) for outcome in told}

    before = counted()
    with grpc.InferenceServerClient(server.url) as client:
        for number in range(16):
            asked = tensor_input("face_images", [photo])
            answer = Queue()
            client.async_infer(
                "faceclip_faces", [asked], lambda result, error, answer=answer: answer.put(error), request_id=f"faces-{number}"
            )
            until(lambda: status(server)["in_flight"] == 1)
            time.sleep(0.02 * number)
            named = grpc.InferInput("request_id", [1], "BYTES")
            named.set_data_from_numpy(np.array([f"faces-{number}".encode()], object))
            ended = client.infer("faceclip_cancel", [named]).as_numpy("ended")
            error = answer.get(timeout=30)
            assert ended.item() == (error is not None), number
            assert error is None or "ended by its id" in str(error)
            told["ok" if error is None else "cancelled"] += 1
            until(lambda: status(server)["in_flight"] == 0)
    assert told["cancelled"] > 0
    assert {name: value - before[name] for name, value in counted().items()} == told


@pytest.mark.proof
def test_no_gauge_of_requests_stays_up_whatever_went_wrong(server, pipe, idle):
    """Of the real server: a hang-up, a request that is refused, one whose place is lost."""
    stream = Stream(server.url, **LONG)
    until(lambda: metrics(server)["faceclip_active_requests"] == 1)
    stream.leave()
    until(lambda: status(server)["in_flight"] == 0)
    with pytest.raises(InvalidRequestError):
        pipe("a portrait", num_inference_steps=0)
    with places(server.connection, 40), pytest.raises(ServerBusyError):
        pipe("a portrait", retries=0)
    ask(server.connection, Admit())

    def gauges():
        found = metrics(server)
        return {name: found[f"faceclip_{name}"] for name in ("requests", "active_requests", "waiting_requests", "draining")}

    until(lambda: not any(gauges().values()))


def test_a_place_without_a_holder_is_lost_and_its_request_is_not_drawn(server, idle):
    place = ask(server.connection, Admit())["place"]
    assert status(server)["in_flight"] == 1
    until(lambda: status(server)["in_flight"] == 0, 20)
    told = ask(server.connection, End(place))
    assert (told["ended"], told["outcome"]) == (False, "cancelled") and "nobody holds the request's place" in told["why"]


def test_what_is_no_operation_is_refused_in_words(server):
    with grpc.InferenceServerClient(server.url) as client:
        for text in (
            b"[",
            b'{"op": "nonsense"}',
            b'{"op": "follow"}',
            b'{"op": "renew", "places": "x"}',
            b'{"op": "drain", "on": 1}',
        ):
            wire = grpc.InferInput("control", [1], "BYTES")
            wire.set_data_from_numpy(np.array([text], object))
            with pytest.raises(InferenceServerException, match="control: "):
                client.infer("sampler", [wire], parameters=server.keys.parameters)
