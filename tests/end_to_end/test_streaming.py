"""The streaming entry: progress, previews, cancellation in every way a caller can go away, deadlines, SSE."""

import base64
import io
import json
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as grpc
from PIL import Image
from tritonclient.utils import InferenceServerException

from benchmarks.measure.example import PHOTO
from faceclip import DeadlineExceededError, InvalidRequestError, Progress
from server.probe import tensor_input

from .callers import metrics, rows

ROWS_PER_STEP = 2
LONG = {"num_inference_steps": 200, "height": 256, "width": 256, "seed": 1}


def settle(server, timeout_s=30):
    """Waits until no request is active; the rows executed by then."""
    deadline = time.monotonic() + timeout_s
    before = rows(server)
    while True:
        time.sleep(0.5)
        now = rows(server)
        if now == before:
            return now
        assert time.monotonic() < deadline, "the denoiser goes on working"
        before = now


def test_progress_then_the_unary_picture(pipe):
    steps = []

    def on_step(_, step, timestep, kwargs):
        steps.append((step, timestep))
        return kwargs

    options = {"seed": 2, "num_inference_steps": 5}
    streamed = pipe("a portrait", callback_on_step_end=on_step, **options)
    assert [step for step, _ in steps] == [0, 1, 2, 3, 4]
    assert [t for _, t in steps] == sorted((t for _, t in steps), reverse=True)
    assert np.array_equal(np.asarray(streamed.images[0]), np.asarray(pipe("a portrait", **options).images[0]))


def test_previews_grow_into_the_picture(server):
    with grpc.InferenceServerClient(server.url) as client:
        answers = []
        client.start_stream(callback=lambda result, error: answers.append(error or result))
        preview = grpc.InferInput("preview", [1], "BOOL")
        preview.set_data_from_numpy(np.array([True]))
        values = {"prompt": b"a portrait", "num_inference_steps": 4, "image_encoding": b"binary"}
        inputs = [*(tensor_input(name, [value]) for name, value in values.items()), preview]
        client.async_stream_infer("faceclip_stream", inputs)
        client.stop_stream()
    assert not any(isinstance(answer, InferenceServerException) for answer in answers), answers
    pictures = [answer.as_numpy("preview_image") for answer in answers]
    previews = [Image.open(io.BytesIO(picture[0])) for picture in pictures if picture is not None]
    assert [picture.size for picture in previews] == [(16, 24)] * 4
    assert answers[4].as_numpy("images") is not None


def test_leaving_the_stream_stops_the_work_and_disturbs_nobody(server, pipe):
    alone = np.asarray(pipe("a castle", seed=5, num_inference_steps=10).images[0])
    before = settle(server)
    stream = pipe.stream("a portrait", num_images_per_prompt=4, **LONG)  # long steps: the client has work, too
    for event in stream:
        if event.step == 3:
            break
    stream.close()
    beside = np.asarray(pipe("a castle", seed=5, num_inference_steps=10).images[0])
    executed = settle(server) - before - (3 * 4 + 10) * ROWS_PER_STEP
    assert executed <= 4 * 4 * ROWS_PER_STEP  # in flight when the last progress was read, and two steps more
    assert np.mean((alone.astype(float) - beside.astype(float)) ** 2) < 0.65
    assert metrics(server)['faceclip_requests_total{outcome="cancelled"}'] >= 1


def test_a_killed_client_is_noticed(server):
    program = (
        "import sys; from faceclip import FaceCLIPPipeline\n"
        f"stream = FaceCLIPPipeline.from_pretrained({server.url!r}).stream('a portrait', **{LONG})\n"
        "for event in stream: print(event.step, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and int(process.stdout.readline()) >= 1
    before = metrics(server).get('faceclip_requests_total{outcome="cancelled"}', 0)
    process.kill()
    process.wait()
    process.stdout.close()
    settle(server)
    assert metrics(server)['faceclip_requests_total{outcome="cancelled"}'] == before + 1


def test_a_streams_deadline_ends_its_work(server, pipe):
    with pytest.raises(DeadlineExceededError):
        for event in pipe.stream("a portrait", timeout_s=2.0, **LONG):
            assert isinstance(event, Progress)
    settle(server)


def test_the_unary_entry_obeys_tritons_timeout_between_steps(server):
    with grpc.InferenceServerClient(server.url) as client:
        inputs = [tensor_input(name, [value]) for name, value in {"prompt": b"a portrait", **LONG}.items()]
        started = time.monotonic()
        with pytest.raises(InferenceServerException, match="timeout"):
            client.infer("faceclip", inputs, timeout=1_000_000)
        assert time.monotonic() - started < 10


def test_bad_input_to_the_stream(pipe):
    with pytest.raises(InvalidRequestError, match="height"):
        list(pipe.stream("a portrait", height=131))


def test_server_sent_events(server):
    body = {"prompt": "a portrait", "num_inference_steps": 3, "seed": 4}
    body["face_images"] = [base64.b64encode(PHOTO.read_bytes()).decode()]
    url = f"http://127.0.0.1:{server.ports.http}/v2/models/faceclip_stream/generate_stream"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        events = [json.loads(line[6:]) for line in response.read().decode().splitlines() if line.startswith("data: ")]
    assert [json.loads(event["progress"])["step"] for event in events[:3]] == [1, 2, 3]
    assert json.loads(events[3]["details"])["seeds"] == [4]
    assert Image.open(io.BytesIO(base64.b64decode(events[3]["images"]))).format == "PNG"
