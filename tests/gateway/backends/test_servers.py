"""Real servers behind: one that is gone, one that dies in the middle, one that comes back; and a stop that waits."""

import base64
import json
import signal
import threading

import pytest

from server.process import Ports, TritonServer
from tests.gateway.running import command, running, until

URL = "/v1/images/generations"
SMALL = {"prompt": "a castle", "num_inference_steps": 2, "height": 64, "width": 64, "seed": 1}
LONG = {**SMALL, "num_inference_steps": 200, "height": 256, "width": 256}


@pytest.fixture
def own(repository, tmp_path):
    """A server of the test's own, which it may end."""
    ports = Ports.free()

    def start():
        started = TritonServer(repository, ports, log=tmp_path / "server.log", settings=["marks=none"])
        started.wait_ready()
        return started

    held = [start()]
    yield held, start
    held[-1].stop(0)


def test_a_server_that_is_gone_is_passed_over(server, tmp_path):
    nowhere = f"127.0.0.1:{Ports.free().grpc}"
    with running([nowhere, server.url], tmp_path) as gate:
        assert all(gate.http.post(URL, json=SMALL).status_code == 200 for _ in range(3))
        told = {each["address"]: each for each in gate.http.get("/v1/status").json()["servers"]}
        assert (told[nowhere]["ready"], told[server.url]["ready"]) == (False, True)
        assert told[nowhere]["why"]
        assert gate.http.get("/readyz").status_code == 200


def test_a_model_that_a_silent_server_may_have_is_waited_for(server, tmp_path):
    nowhere = f"127.0.0.1:{Ports.free().grpc}"
    with running([nowhere, server.url], tmp_path) as gate:
        asked = {**SMALL, "model": "of-the-silent-one"}
        answer = gate.http.post(URL, json=asked)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_unavailable")
        assert nowhere in answer.json()["error"]["message"]
        job = gate.http.post("/v1/jobs", json=asked).json()
        other = gate.http.post("/v1/jobs", json=SMALL).json()
        until(lambda: gate.http.get(f"/v1/jobs/{other['id']}").json()["status"] == "completed")
        assert gate.http.get(f"/v1/jobs/{job['id']}").json()["status"] in ("queued", "generating")


@pytest.mark.proof
def test_jobs_that_only_a_server_can_judge_wait_for_one(repository, tmp_path):
    """A key's limits of size and model: accepted, and then drawn or refused, as if the server had been there before."""
    ports = Ports.free()
    cases = {
        "fits": ("--largest-side=64", {}, None),
        "too large": ("--largest-side=64", {"width": 128}, "size_not_allowed"),
        "too large by itself": ("--largest-side=64", {"height": None, "width": None}, "size_not_allowed"),
        "its model": ("--variant=tiny-sdxl", {}, None),
        "its model by name": ("--variant=tiny-sdxl", {"model": "tiny-sdxl"}, None),
        "another model": ("--variant=flux", {}, "model_not_allowed"),
    }
    keys = {
        option: command("keys", "add", "somebody", option, f"--data={tmp_path}").stdout.strip() for option, *_ in cases.values()
    }
    with running(f"127.0.0.1:{ports.grpc}", tmp_path) as gate:

        def ask(method, path, option, **more):
            return gate.http.request(method, path, headers={"Authorization": f"Bearer {keys[option]}"}, **more)

        jobs = {}
        for name, (option, fields, _) in cases.items():
            assert ask("POST", URL, option, json={**SMALL, **fields}).status_code == 503, name
            answer = ask("POST", "/v1/jobs", option, json={**SMALL, **fields})
            assert answer.status_code == 202, (name, answer.text)
            jobs[name] = answer.json()["poll_url"]
        started = TritonServer(repository, ports, log=tmp_path / "server.log", settings=["marks=none"])
        try:
            for name, (option, _, code) in cases.items():
                job = until(lambda name=name, option=option: end_of(ask("GET", jobs[name], option).json()), seconds=240)
                assert (job["status"], (job["error"] or {}).get("code")) == ("failed" if code else "completed", code), name
        finally:
            started.stop(0)


def end_of(job):
    return job if job["ended"] else None


def test_no_server_at_all(tmp_path):
    with running(f"127.0.0.1:{Ports.free().grpc}", tmp_path) as gate:
        assert gate.http.get("/healthz").status_code == 200
        for answer in (gate.http.get("/readyz"), gate.http.post(URL, json=SMALL), gate.http.get("/v1/capabilities")):
            assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1


@pytest.mark.proof
def test_a_server_that_dies_in_the_middle_and_comes_back(own, tmp_path):
    """In the middle of an answer and of a stream."""
    held, start = own
    with running(held[0].url, tmp_path / "data") as gate:
        answers = {}

        def ask(stream):
            with gate.http.stream("POST", URL, json={**LONG, "stream": stream, "partial_images": 3}) as answer:
                if stream:
                    begun.set()
                answers[stream] = (answer.status_code, answer.read().decode())

        begun = threading.Event()
        asking = [threading.Thread(target=ask, args=(stream,)) for stream in (False, True)]
        for each in asking:
            each.start()
        until(lambda: gate.http.get("/v1/status").json()["servers"][0]["in_flight_here"] == 2)
        assert begun.wait(60)
        held[0].kill()
        for each in asking:
            each.join(60)
        for stream, (status, text) in answers.items():
            assert status == (200 if stream else 503)
            error = json.loads(text.partition("event: error\ndata: ")[2]) if stream else json.loads(text)
            assert error["error"]["code"] == "server_unavailable"
        assert answers.keys() == {False, True}
        until(lambda: gate.http.get("/readyz").status_code == 503)
        held[0].stop()
        held.append(start())
        until(lambda: gate.http.get("/readyz").status_code == 200)
        assert gate.http.post(URL, json=SMALL).status_code == 200


@pytest.mark.proof
def test_a_stop_waits_for_what_is_drawn(server, tmp_path):
    with running(server.url, tmp_path) as gate:
        answers = []
        asking = threading.Thread(target=lambda: answers.append(gate.http.post(URL, json={**LONG, "num_inference_steps": 60})))
        asking.start()
        until(lambda: gate.http.get("/v1/status").json()["servers"][0]["in_flight_here"] == 1)
        gate.process.send_signal(signal.SIGTERM)
        asking.join(60)
        assert answers[0].status_code == 200
        assert base64.b64decode(answers[0].json()["data"][0]["b64_json"])
        gate.process.wait(30)
        assert not [line for line in gate.lines if "Traceback" in line]
