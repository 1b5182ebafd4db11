"""Whoever is no model of this server and no operator: inner models do nothing for them, and no answer tells how to become one."""

import json
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as grpc
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from faceclip_serving.contract.callers import OPERATOR_KEY, SECRET
from faceclip_serving.contract.models import CONTROL, REPORT
from faceclip_serving.contract.names import PUBLIC, SAMPLER
from faceclip_serving.contract.operations import (
    FOR_OPERATORS,
    OPERATIONS,
    Admit,
    Cancel,
    Describe,
    Drain,
    End,
    Follow,
    Leave,
    Lost,
    Prepare,
    Prepared,
    Renew,
    Start,
    Status,
    encode,
)

from .callers import inputs, metrics, places, status, until

CALLERS = ("nobody", "a wrong secret", "an operator")


def parameters_of(who, server):
    return {
        "nobody": {},
        "a wrong secret": {SECRET: "0" * 64, "faceclip_context": '{"place": "x", "received": 0, "deadline": null}'},
        "an operator": {OPERATOR_KEY: server.keys.operator},
    }[who]


def operations(place):
    """One of each kind, about a place that somebody else holds."""
    asked = (
        Admit("x"), Renew([place]), Prepare(place), Prepared(place), Lost([place]), Start(), Follow(place), Describe(place), Leave([place]),
        End(place), Cancel("held"),
        Drain(), Status(),
    )  # fmt: skip
    assert {type(each) for each in asked} == set(OPERATIONS.values()), "all that there are"
    return asked


def control(operation):
    wire = grpc.InferInput(CONTROL.name, [1], "BYTES")
    wire.set_data_from_numpy(encode(operation))
    return [wire]


def zeros(client, model):
    """Tensors that the model's configuration asks for."""
    found = []
    for tensor in client.get_model_config(model).config.input:
        if not tensor.optional:
            kind = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_").replace("STRING", "BYTES")
            shape = [max(dim, 1) for dim in tensor.dims]
            wire = grpc.InferInput(tensor.name, shape, kind)
            array = np.full(shape, b"x", object) if kind == "BYTES" else np.zeros(shape, triton_to_np_dtype(kind))
            wire.set_data_from_numpy(array)
            found.append(wire)
    return found


def done(server):
    """All work that the server has counted."""
    found = metrics(server)
    return {
        name: value
        for name, value in found.items()
        if name.startswith(("faceclip_ticks", "faceclip_denoiser_rows", "faceclip_requests_total"))
    }


@pytest.mark.parametrize("who", CALLERS)
def test_inner_models_do_nothing_for_them(server, who):
    shown = parameters_of(who, server)
    until(lambda: status(server)["in_flight"] == 0)
    with grpc.InferenceServerClient(server.url) as client, places(server.connection, 1) as (place,):
        inner = [model.name for model in client.get_model_repository_index().models if model.name not in PUBLIC]
        assert {"ensemble", "prepare", "sampler", "finish"} == {*inner}
        asked = [(model, zeros(client, model)) for model in inner if model != SAMPLER]
        asked += [
            (SAMPLER, control(each))
            for each in operations(place)
            if not (shown.get(OPERATOR_KEY) and isinstance(each, FOR_OPERATORS))
        ]
        before, said = done(server), []
        for model, tensors in asked:
            with pytest.raises(InferenceServerException, match="only models of this server may call this one") as refused:
                client.infer(model, tensors, parameters=shown)
            said.append(str(refused.value))

        answers = []
        client.start_stream(callback=lambda result, error: answers.append(error or result))
        client.async_stream_infer("faceclip_stream", inputs(num_inference_steps=1))
        until(lambda: len(answers) == 2)  # a step, and the picture
        for count, (model, tensors) in enumerate(asked, 3):
            client.async_stream_infer(model, tensors, parameters=shown)
            until(lambda count=count: len(answers) == count)
        client.stop_stream()
        refused = [answer for answer in answers if isinstance(answer, InferenceServerException)]
        assert len(refused) == len(asked)
        assert all("only models of this server" in str(each) for each in refused), refused

        now = status(server)
        assert (now["in_flight"], now["draining"]) == (1, False), "nobody was admitted, ended or drained"
        more = {name: value - before.get(name, 0) for name, value in done(server).items() if value != before.get(name, 0)}
        assert more.pop("faceclip_ticks_total") == 1 and more.pop('faceclip_requests_total{outcome="ok"}') == 1
        assert {name.partition("{")[0] for name in more} <= {"faceclip_denoiser_rows_total"}
    for text in (*said, *map(str, refused)):
        assert server.keys.secret not in text and server.keys.operator not in text


def test_an_operator_may_drain_and_look(server):
    key = {OPERATOR_KEY: server.keys.operator}
    with grpc.InferenceServerClient(server.url) as client:
        for operation, draining in ((Drain(), True), (Status(), True), (Drain(on=False), False)):
            answer = client.infer(SAMPLER, control(operation), parameters=key, outputs=[grpc.InferRequestedOutput(REPORT.name)])
            assert json.loads(answer.as_numpy(REPORT.name)[0])["draining"] is draining


def test_nothing_that_the_server_tells_holds_a_key(server):
    told = [server.log.read_text()]
    for path in (
        "v2",
        "v2/models/faceclip",
        "v2/models/faceclip/config",
        "v2/models/sampler/config",
        "v2/models/ensemble/config",
    ):
        with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.http}/{path}", timeout=10) as answer:
            told.append(answer.read().decode())
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics", timeout=10) as answer:
        told.append(answer.read().decode())
    for text in told:
        assert text and server.keys.secret not in text and server.keys.operator not in text
    assert server.keys.secret not in repr(server.keys)


def test_what_outsiders_send_to_the_sampler_is_not_read(server):
    """However large it is, it takes no time of those who are served."""
    for text in (b"not JSON", b"[" * 10**6, b'{"op": "status", "x": 1}', b'{"op": "none"}'):
        wire = grpc.InferInput(CONTROL.name, [1], "BYTES")
        wire.set_data_from_numpy(np.array([text], object))
        refused = pytest.raises(InferenceServerException, match="only models of this server may call this one")
        with grpc.InferenceServerClient(server.url) as client, refused:
            client.infer(SAMPLER, [wire])


def test_an_id_that_is_longer_than_any_is_refused(server):
    with grpc.InferenceServerClient(server.url) as client:
        for model in ("faceclip", "faceclip_stream"):
            answers = []
            client.start_stream(callback=lambda result, error: answers.append(error or result))  # noqa: B023
            client.async_stream_infer(model, inputs(num_inference_steps=1), request_id="x" * 129)
            until(lambda: answers)  # noqa: B023
            client.stop_stream()
            assert "id: at most 128 characters are read, got 129; shorten it" in str(answers[0])
        asked = grpc.InferInput("request_id", [1], "BYTES")
        asked.set_data_from_numpy(np.array([b"x" * 129], object))
        with pytest.raises(InferenceServerException, match="request_id: at most 128 characters are read, got 129"):
            client.infer("faceclip_cancel", [asked])
        asked.set_data_from_numpy(np.array([b"guessed\0secret"], object))
        with pytest.raises(InferenceServerException, match="request_id: expected text without the character NUL"):
            client.infer("faceclip_cancel", [asked])
