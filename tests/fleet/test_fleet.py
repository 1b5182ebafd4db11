"""Real servers behind a real Envoy: who may do what, whom the servers take a caller for, and restarts and stops that lose nothing."""

import json
import signal
import threading
import time
from contextlib import contextmanager
from functools import partial

import grpc
import psutil
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from benchmarks.fleet.running import running
from benchmarks.measure.sleeping import Sleep, with_sleeping_denoiser
from faceclip import FaceCLIPPipeline, retry
from faceclip_serving.contract.callers import TENANT_HEADER
from faceclip_serving.contract.names import COMPONENTS, PUBLIC, SAMPLER
from faceclip_serving.contract.operations import Admit, Drain, Status
from faceclip_serving.face.photos import MAX_BYTES
from server.control import ask
from server.fleet.envoy.grpc_fields import OF_A_MODEL, OF_THE_SERVER, STREAM
from tests.deploy.tokens import Issuer
from tests.end_to_end.callers import inputs
from tests.end_to_end.test_outsiders import control

METHODS = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
INNER = ("sampler", "ensemble", "prepare", "finish", "denoiser", "faceclip_streams", "")
SHORT = {"num_inference_steps": 1}


@pytest.fixture(scope="module")
def issuer():
    return Issuer()


@pytest.fixture(scope="module")
def fleet(repository, issuer, tmp_path_factory):
    """Two servers; their denoisers sleep, since the cores are for their starts. Each tenant has 1,000 calls a minute, `small` 3 an hour."""
    folder = tmp_path_factory.mktemp("fleet")
    keys = folder / "jwks.json"
    keys.write_text(issuer.jwks())
    tokens = ("--issuer", issuer.name, "--audience", "faceclip", "--jwks", str(keys))
    quotas = ("--quota", "1000/60", "--quota", "small=3/3600")
    with (
        with_sleeping_denoiser(repository, Sleep(0.02, 0.0)) as sleeping,
        running(sleeping, 2, folder / "log", *tokens, *quotas) as fleet,
    ):
        yield fleet


@contextmanager
def client(fleet, headers):
    with triton.InferenceServerClient(fleet.url) as client:
        client.infer = partial(client.infer, headers=headers)
        yield client


def states(fleet):
    """What each server's operator hears."""
    return [ask(fleet.connection(number), Status()) for number in range(2)]


def refused(fleet, headers, status, model="faceclip"):
    with client(fleet, headers) as caller, pytest.raises(InferenceServerException) as caught:
        caller.infer(model, inputs(**SHORT))
    assert caught.value.status() == f"StatusCode.{status}", caught.value


# -------------------------------------------------------------------------------------------------------------------- who comes in
@pytest.mark.proof
def test_nobody_comes_in_without_a_good_token(fleet, issuer):
    now = time.time()
    claims = ({"exp": now - 3600}, {"exp": None}, {"iss": "https://other.example"}, {"nbf": now + 3600})
    for headers in ({}, {"authorization": "Bearer x"}, Issuer().headers(), *(issuer.headers(**each) for each in claims)):
        refused(fleet, headers, "UNAUTHENTICATED")
    for audience in ("other", None, "faceclip-admin"):  # known, and not for us
        refused(fleet, issuer.headers(aud=audience), "PERMISSION_DENIED")


def test_a_token_without_a_tenant_lets_nobody_in(fleet, issuer):
    refused(fleet, issuer.headers(tenant=None), "PERMISSION_DENIED")
    refused(fleet, {**issuer.headers(tenant=None), TENANT_HEADER: "shop"}, "PERMISSION_DENIED")


def test_public_models_alone_are_reached(fleet, issuer):
    for model in INNER:
        refused(fleet, issuer.headers(), "PERMISSION_DENIED", model)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(fleet.url))
    metadata = tuple(issuer.headers().items())
    for model in (*PUBLIC, *INNER):
        for kind in ("ModelConfig", "ModelMetadata", "ModelReady"):
            call = partial(getattr(stub, kind), getattr(service_pb2, f"{kind}Request")(name=model), metadata=metadata)
            if model in PUBLIC:
                call()
            else:
                with pytest.raises(grpc.RpcError) as caught:
                    call()
                assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_of_tritons_methods_those_that_steer_it_are_closed(fleet, issuer):
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(fleet.url))
    metadata = tuple(issuer.headers().items())
    assert len(METHODS) > len(OF_A_MODEL) + len(OF_THE_SERVER)
    for name, method in METHODS.items():
        call = partial(getattr(stub, name), getattr(service_pb2, method.input_type.name)(), metadata=metadata)
        if name in OF_THE_SERVER:
            call()
        elif name not in {*OF_A_MODEL, STREAM}:  # what a stream names is another test
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED, name


# ------------------------------------------------------------------------------------------------------------- who a server takes it for
def test_the_tenant_is_who_the_token_says(fleet, issuer):
    """Whatever the caller says, in each of the ways to say it, and for every message of a stream."""
    headers = {**issuer.headers("shop"), TENANT_HEADER: "other"}
    said = {"parameters": {TENANT_HEADER: "other"}}
    tensors = inputs(tenant=b"other", **SHORT)

    def tenant(answer):
        return json.loads(answer.as_numpy("details")[0])["parameters"]["tenant"]

    with client(fleet, headers) as caller:
        assert tenant(caller.infer("faceclip", tensors, **said)) == "shop"
    with triton.InferenceServerClient(fleet.url) as caller:
        answers = []
        caller.start_stream(callback=lambda result, error: answers.append(error or result), headers=headers)
        for count in (2, 4):
            caller.async_stream_infer("faceclip_stream", tensors, **said)
            fleet.until(lambda count=count: len(answers) == count)
        caller.stop_stream()
    assert [tenant(each) for each in answers if each.as_numpy("details") is not None] == ["shop", "shop"]


def test_who_is_over_a_quota_takes_nothing_of_another(fleet, issuer):
    with client(fleet, issuer.headers("small")) as small, client(fleet, issuer.headers("large")) as large:
        for _ in range(3):
            small.infer("faceclip_verify", [])
        for _ in range(3):
            refused(fleet, issuer.headers("small"), "RESOURCE_EXHAUSTED")
            large.infer("faceclip_verify", [])
    with triton.InferenceServerClient(fleet.url) as caller:  # what a client reads before it draws does not count
        caller.get_model_config("faceclip", headers=issuer.headers("small"))


# --------------------------------------------------------------------------------------------------- who may draw may do nothing else
def test_nobody_drains_a_server_who_may_only_draw(fleet, issuer):
    """Neither at the door nor by a further message of a stream that began well; there no inner model hears anything either."""
    for headers in ({}, issuer.headers()):
        with client(fleet, headers) as caller:
            for operation in (Drain(), *(Admit(f"{number}") for number in range(40))):
                with pytest.raises(InferenceServerException, match=r"RBAC|Jwt"):
                    caller.infer(SAMPLER, control(operation))
    with triton.InferenceServerClient(fleet.url) as caller:
        answers = []
        caller.start_stream(callback=lambda result, error: answers.append(error or result), headers=issuer.headers())
        caller.async_stream_infer("faceclip_stream", inputs(**SHORT))
        fleet.until(lambda: len(answers) == 2)
        further = (Drain(), Drain(cut=True), *(Admit(f"{number}") for number in range(40)))
        for number, operation in enumerate(further, 3):
            caller.async_stream_infer(SAMPLER, control(operation))
            fleet.until(lambda number=number: len(answers) == number)
        inner = (*COMPONENTS, *filter(None, INNER))  # engines refuse nobody by themselves
        for number, model in enumerate(inner, 3 + len(further)):
            caller.async_stream_infer(model, inputs(**SHORT))
            fleet.until(lambda number=number: len(answers) == number)
        caller.stop_stream()
    assert len(answers) == 2 + len(further) + len(inner)
    assert all("unknown model" in str(each) and "?" in str(each) for each in answers[2:]), answers[2:]
    assert [(state["draining"], state["in_flight"]) for state in states(fleet)] == [(False, 0)] * 2


def test_a_photograph_of_the_largest_size_reaches_a_server(fleet, issuer):
    with client(fleet, issuer.headers()) as caller, pytest.raises(InferenceServerException, match="face_images") as caught:
        caller.infer("faceclip", inputs(face_images=bytes(MAX_BYTES)))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


# ------------------------------------------------------------------------------------------------------- deaths, restarts and the end
@pytest.mark.proof
def test_death_restart_and_stop_lose_nothing(fleet, issuer, monkeypatch):
    """Unary calls, of a client that sends again, once, what was lost, and nothing else."""
    monkeypatch.setattr(retry, "CONNECT_RETRIES", 0)
    over, failed, drawn = threading.Event(), [], []

    def draw(seed):
        with FaceCLIPPipeline.from_pretrained(fleet.url, headers=issuer.headers("load")) as pipe:
            while not over.is_set():
                try:
                    drawn.append(pipe("a portrait", num_inference_steps=100, seed=seed))
                except Exception as error:  # noqa: BLE001 - each is a failed request
                    failed.append(error)

    callers = [threading.Thread(target=draw, args=(seed,)) for seed in range(3)]
    for caller in callers:
        caller.start()
    first = [fleet.launcher(number).pid for number in range(2)]
    fleet.until(lambda: drawn)
    fleet.kill(0)
    fleet.until(lambda: fleet.ready()[1]["server 0"]["died"] == 1)
    fleet.restart()  # the one that died comes back first, then the other goes
    fleet.until(lambda: fleet.said("all servers were restarted"))
    assert not {*first} & {fleet.launcher(number).pid for number in range(2)}
    assert [server["died"] for server in fleet.ready()[1].values()] == [1, 0]
    over.set()
    for caller in callers:
        caller.join()
    assert not failed and len(drawn) > 10

    assert fleet.ready_servers() == 2
    with FaceCLIPPipeline.from_pretrained(fleet.url, headers=issuer.headers("load")) as pipe:
        last = []

        def long(seed):
            *_, result = pipe.stream("a portrait", num_inference_steps=200, seed=seed)
            last.append(result)

        callers = [threading.Thread(target=long, args=(seed,)) for seed in range(4)]
        for caller in callers:
            caller.start()
        fleet.until(lambda: sum(state["in_flight"] for state in states(fleet)) == 4)
        members = psutil.Process(fleet.process.pid).children(recursive=True)
        before = len(fleet.said("server 0: not ready"))
        fleet.restart()  # the stop comes in the middle of it
        fleet.until(lambda: len(fleet.said("server 0: not ready")) > before)
        fleet.process.send_signal(signal.SIGTERM)
        fleet.until(lambda: not fleet.ready()[0])
        for caller in callers:
            caller.join()
        assert len(last) == 4
    assert fleet.end() == 0 and fleet.said("stopped")
    assert not [each for each in members if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
