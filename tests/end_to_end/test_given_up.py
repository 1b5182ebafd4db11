"""A unary call can be given up, in every way that callers have: its work ends, and nobody beside it notices."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as grpc

from faceclip import AsyncFaceCLIPPipeline, FaceCLIPPipeline
from faceclip_serving.contract.callers import SECRET

from .callers import LONG, Stream, crowd, inputs, metrics, metrics_now, rows, status, until

SLOW = {"num_inference_steps": 200, "height": 512, "width": 512, "num_images_per_prompt": 4}
"""A step is long, so that a count of steps means something: the loop's counts are told a few times a second only."""
COUNTS_TOLD_S = 0.5
"""After so long all that was done is counted."""
TIMEOUT_S = 15
"""Two steps are done by then, on a busy machine too."""
ROWS_PER_STEP = 8
ROWS_BESIDE = 8 * 2
MOST_STEPS = 6
"""Until its caller is seen to be gone, one step or two, the call under way among them; two more end it; and counts lag in between."""


@pytest.fixture(scope="module")
def solo(pipe):
    return np.asarray(pipe("a castle", seed=5, num_inference_steps=8).images[0], float)


@pytest.fixture
def idle(server):
    until(lambda: status(server)["in_flight"] == 0)
    time.sleep(COUNTS_TOLD_S)


def by_its_timeout(server, running):
    with grpc.InferenceServerClient(server.url) as client, ThreadPoolExecutor(1) as caller:
        call = caller.submit(client.infer, "faceclip", inputs(**SLOW), client_timeout=TIMEOUT_S)
        running()
        assert "Deadline Exceeded" in str(call.exception())


def by_its_future(server, running):
    with grpc.InferenceServerClient(server.url) as client:
        call = client.async_infer("faceclip", inputs(**SLOW), callback=lambda result, error: None)
        running()
        call.cancel()


def by_its_task(server, running):
    async def run():
        async with await AsyncFaceCLIPPipeline.from_pretrained(server.url) as pipe:
            task = asyncio.create_task(pipe("a portrait", **SLOW))
            await asyncio.to_thread(running)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())


def by_a_signal(number):
    def leave(server, running):
        program = f"from faceclip import FaceCLIPPipeline as F; F.from_pretrained({server.url!r})('a portrait', **{SLOW})"
        process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
        running()
        process.send_signal(number)
        process.wait()

    return leave


def post(server, model, **body):
    url = f"http://127.0.0.1:{server.ports.http}/v2/models/{model}/generate"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def by_its_id(server, running):
    """Over HTTP: Triton sees no hang-up there, so whoever knows the id says so."""
    told = []

    def call():
        try:
            post(server, "faceclip", prompt="a portrait", id="given-up-7", **SLOW)
        except urllib.error.HTTPError as error:
            told.append(error.read().decode())

    caller = threading.Thread(target=call)
    caller.start()
    running()
    assert post(server, "faceclip_cancel", request_id="another")["ended"] is False
    assert post(server, "faceclip_cancel", request_id="given-up-7")["ended"] is True
    caller.join()
    assert "ended by its id" in told[0] and SECRET not in told[0]


WAYS = {
    "timeout": by_its_timeout,
    "future": by_its_future,
    "task": by_its_task,
    "Ctrl-C": by_a_signal(signal.SIGINT),
    "kill": by_a_signal(signal.SIGKILL),
    "id over HTTP": by_its_id,
}


@pytest.mark.proof
@pytest.mark.parametrize("way", WAYS)
def test_its_work_ends_and_who_is_beside_it_gets_the_picture_of_a_lone_request(server, pipe, solo, idle, way):
    ended = metrics(server).get('faceclip_requests_total{outcome="cancelled"}', 0)
    began = rows(server)
    WAYS[way](server, lambda: until(lambda: rows(server, metrics_now) >= began + 2 * ROWS_PER_STEP))
    left = rows(server)
    beside = np.asarray(pipe("a castle", seed=5, num_inference_steps=8).images[0], float)
    until(lambda: status(server)["in_flight"] == 0)
    time.sleep(COUNTS_TOLD_S)
    assert rows(server) - left - ROWS_BESIDE <= MOST_STEPS * ROWS_PER_STEP
    assert np.mean((beside - solo) ** 2) < 0.65  # 50 dB: a batch may round differently from a single row
    until(lambda: metrics_now(server).get('faceclip_requests_total{outcome="cancelled"}') == ended + 1)


def test_also_while_it_waits_for_its_turn(server, idle):
    served = [Stream(server.url, **LONG) for _ in range(8)]
    until(lambda: status(server)["active"] == 8)
    with grpc.InferenceServerClient(server.url) as client:
        call = client.async_infer("faceclip", inputs(**SLOW), callback=lambda result, error: None)
        until(lambda: status(server)["waiting"] == 1)
        call.cancel()
        until(lambda: status(server)["in_flight"] == 8)
    for each in served:
        each.leave()


@pytest.mark.proof
def test_also_while_its_photograph_is_prepared(server, idle):
    photo, before = crowd(), rows(server)
    with grpc.InferenceServerClient(server.url) as client:
        calls = [
            client.async_infer("faceclip", inputs(face_images=photo, **SLOW), callback=lambda result, error: None)
            for _ in range(4)
        ]
        until(lambda: status(server)["in_flight"] == 4)
        for call in calls:
            call.cancel()
    until(lambda: status(server)["in_flight"] == 0)
    with FaceCLIPPipeline.from_pretrained(server.url) as pipe:
        pipe("a portrait", num_inference_steps=1)
    time.sleep(COUNTS_TOLD_S)
    assert rows(server) == before + 2
