"""A real server with checks on: what is refused ends with its code, in every way to ask, and nothing of it gets out."""

import base64
import io
import json
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as grpc
from PIL import Image

from benchmarks.measure.example import PHOTO
from faceclip import FaceCLIPPipeline, InvalidRequestError, RefusedError, server_status
from faceclip.address import split_target
from faceclip.grpc_transport import GrpcTransport
from faceclip_serving.checks.policy import PolicyError
from faceclip_serving.models.streaming import blurred
from server.control import told_by
from server.probe import tensor_input
from server.process import Ports, TritonServer

QUICK = {"num_inference_steps": 2, "guidance_scale": 1.0}
REFUSED, OTHER = {"height": 128, "width": 192, **QUICK}, {"height": 128, "width": 160, **QUICK}
"""The operator's own check refuses pictures of one size."""
OWN = """
import struct
def check(question):
    wide = any(struct.unpack(">I", each[16:20])[0] == 192 for each in question["pictures"])
    return {"action": "refuse", "score": 0.987, "reason": "wide pictures are not wanted"} if wide else {"action": "allow"}
"""
POLICY = """
[[hooks]]
name = "width"
on = ["pictures"]
call = "own.py:check"
timeout_s = 10

[listed]
names = "names.txt"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    (folder / "own.py").write_text(OWN)
    (folder / "names.txt").write_text("Erika Mustermann\n")
    (folder / "policy.toml").write_text(POLICY)
    return folder


@pytest.fixture(scope="module")
def checking(repository, folder):
    with TritonServer(
        repository, Ports.free(), log=folder / "log", settings=[f"policy={folder / 'policy.toml'}", "marks=none"]
    ) as server:
        server.wait_ready()
        yield server
        server.stop(0)


@pytest.fixture(scope="module")
def pipe(checking):
    with FaceCLIPPipeline.from_pretrained(checking.url, timeout_s=120) as pipeline:
        yield pipeline


def told(folder, id):
    """What the log says of a request: its checks, and its end, which is written once it was answered."""
    deadline = time.monotonic() + 30
    while True:
        lines = [line for line in (folder / "log").read_text(errors="replace").splitlines() if line.startswith('{"event"')]
        found = [each for each in map(json.loads, lines) if each["id"] == id]
        requests = [each for each in found if each["event"] == "request"]
        if requests:
            return [each for each in found if each["event"] == "check"], requests[0]
        assert time.monotonic() < deadline, f"no line for {id}"
        time.sleep(0.1)


def streamed(server, **values):
    """Answers, and the error that ended them."""
    answers = []
    with grpc.InferenceServerClient(server.url) as client:
        client.start_stream(lambda result, error: answers.append(error or result))
        inputs = [tensor_input(name, [value]) for name, value in {"prompt": "x", **values}.items()]
        preview = grpc.InferInput("preview", [1], "BOOL")
        preview.set_data_from_numpy(np.array([True]))
        client.async_stream_infer("faceclip_stream", [*inputs, preview])
        client.stop_stream()
    return [each for each in answers if not isinstance(each, Exception)], [
        each for each in answers if isinstance(each, Exception)
    ]


@pytest.mark.proof
@pytest.mark.parametrize(
    ("prompt", "face", "code"),
    [("a child in a bikini", None, "policy.minor"), ("nude portrait", PHOTO, "policy.nudity"),
     ("Erika  MUSTERMANN at the sea", None, "policy.name_listed")],
)  # fmt: skip
def test_a_prompt_is_refused_by_its_code(pipe, folder, prompt, face, code):
    with pytest.raises(RefusedError, match=rf"^{code}: the prompt ") as raised:
        pipe(prompt, face_image=face, **OTHER)
    assert raised.value.code == code and isinstance(raised.value, InvalidRequestError)
    (check,), request = told(folder, raised.value.request_id)
    assert "policy." + check["code"] == code and (request["outcome"], request["about"]) == ("refused", code)
    assert prompt not in (folder / "log").read_text(errors="replace")


def test_over_http_it_is_an_error_of_the_caller(checking):
    body = json.dumps({"prompt": "a child in a bikini"}).encode()
    url = f"http://127.0.0.1:{checking.ports.http}/v2/models/faceclip/generate"
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(urllib.request.Request(url, body), timeout=60)
    assert raised.value.code == 400 and "policy.minor: " in json.load(raised.value)["error"]


def test_a_harmless_request_is_served_and_told_which_policy_let_it_pass(pipe):
    details = pipe("portrait of a woman in a red coat", face_image=PHOTO, **OTHER).details
    assert details["checks"]["on"] == ["prompt", "photographs", "pictures", "names", "width"] and details["checks"]["off"] == [
        "faces"
    ]
    assert len(details["checks"]["policy"]) == 12 and details["timings_s"]["check"] > 0
    assert "score" not in json.dumps(details["checks"])


def test_status_tells_what_is_on(checking):
    assert told_by(checking.connection)["checks"]["on"] == ["prompt", "photographs", "pictures", "names", "width"]
    transport = GrpcTransport(split_target(checking.url)[0])
    try:
        assert server_status(transport).checks["faceclip"]["off"] == ["faces"]
    finally:
        transport.close()


def test_a_refused_picture_is_not_delivered_and_the_score_is_not_told(pipe, folder):
    with pytest.raises(RefusedError, match=r"^policy\.width: wide pictures are not wanted$") as raised:
        pipe("a lighthouse", **REFUSED)
    (check,), request = told(folder, raised.value.request_id)
    assert (check["code"], check["score"], request["about"]) == ("width", 0.987, "policy.width")
    with pytest.raises(RefusedError, match="wide") as raised:
        pipe("a lighthouse", num_images_per_prompt=2, **REFUSED)
    assert "0.98" not in str(raised.value)


def test_a_refused_picture_ends_its_own_request_alone(pipe):
    found = {}

    def ask(name, size):
        try:
            found[name] = pipe("a lighthouse", seed=3, **size).images[0].size
        except RefusedError as error:
            found[name] = error.code

    threads = [threading.Thread(target=ask, args=(i, REFUSED if i % 2 else OTHER)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: "policy.width" if i % 2 else (160, 128) for i in range(6)}


def test_a_stream_of_a_refused_picture_has_no_picture_and_blurred_previews(checking):
    answers, errors = streamed(checking, height=128, width=192, num_inference_steps=2)
    assert len(errors) == 1 and "policy.width: wide pictures are not wanted" in str(errors[0])
    assert all(each.as_numpy("images") is None for each in answers)
    previews = [preview[0] for each in answers if (preview := each.as_numpy("preview_image")) is not None]
    assert previews
    pictures = [np.asarray(Image.open(io.BytesIO(_file(each))), int) for each in previews]
    for picture in pictures:
        assert picture.shape == (16, 24, 3)
        coarse = blurred(picture.astype(np.uint8), 16).astype(int)
        assert np.abs(picture - coarse).mean() < 12, "no detail that a mosaic of 16 cells does not hold"


def _file(content):
    return content if content.startswith(b"\xff\xd8") else base64.b64decode(content)


def test_refusals_are_counted(checking, pipe):
    def refused():
        text = urllib.request.urlopen(f"http://127.0.0.1:{checking.ports.metrics}/metrics", timeout=30).read().decode()
        found = [
            line for line in text.splitlines() if line.startswith("faceclip_requests_total") and 'outcome="refused"' in line
        ]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    time.sleep(3)  # those of the tests before are told by then
    before = refused()
    with pytest.raises(RefusedError):
        pipe("a child in a bikini", **OTHER)
    deadline = time.monotonic() + 30
    while refused() == before:  # Triton gathers what models count every two seconds
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert refused() > before


def test_a_wrong_policy_ends_the_start_in_words(repository, folder):
    wrong = folder / "wrong.toml"
    wrong.write_text("[pictures]\nrefuze = 0.7\n")
    with pytest.raises(PolicyError, match=r"\[pictures\]: 'refuze' is not known; did you mean 'refuse'\?"):
        TritonServer(repository, Ports.free(), settings=[f"policy={wrong}"])
