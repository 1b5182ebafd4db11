"""`python -m server run`: its three answers, what it does when a model dies, and how it stops."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from faceclip import FaceCLIPPipeline, ServerUnavailableError
from faceclip_serving.contract.operations import Admit, End, Leave, Status
from server.control import ask
from server.models import model_processes
from server.process import Ports, TritonServer

ROOT = Path(__file__).resolve().parents[2]
SLOW = {"height": 512, "width": 512, "num_images_per_prompt": 2, "num_inference_steps": 1}
"""Decoding takes longer than denoising, so most of the time nothing is in the sampler."""
LONG = {"height": 256, "width": 256, "num_inference_steps": 200}


class Running:
    """A `server run` of its own, and what it said."""

    def __init__(self, repository, *options):
        self.ports = Ports.free()
        ports = [f"--{name}-port={getattr(self.ports, name)}" for name in ("http", "grpc", "metrics", "health")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server", "run", str(repository), *ports, *options],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = []
        self.url = f"127.0.0.1:{self.ports.grpc}"
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self._reader.start()

    def ask(self, question):
        """Status and document."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports.health}/{question}", timeout=5) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def answers(self):
        try:
            return self.ask("live")
        except urllib.error.URLError:
            return None

    def until(self, condition, timeout_s=60):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline, self.lines[-5:]
            time.sleep(0.05)

    def said(self, text):
        return [line for line in self.lines if text in line]

    def until_ready(self):
        self.until(lambda: self.said("ready after"))

    def end(self, timeout_s=60):
        """Exit code, once all was read."""
        code = self.process.wait(timeout_s)
        self._reader.join(5)
        return code


@contextmanager
def running(repository, *options):
    started = Running(repository, *options)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def models_of(run):
    """Model -> process id."""
    (server,) = psutil.Process(run.process.pid).children()
    return {model: pid for pid, model in model_processes(server.pid).items()}


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "server", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_full_is_ready_draining_is_not_and_a_stop_waits_for_what_is_in_flight(repository):
    with running(repository) as run, ThreadPoolExecutor(2) as clients:
        run.until(run.answers)
        assert [run.ask(question)[0] for question in ("start", "ready", "live", "else")] == [503, 503, 200, 404]
        run.until_ready()
        assert [run.ask(question)[0] for question in ("start", "ready", "live")] == [200, 200, 200]

        places = [ask(run.url, Admit())["place"] for _ in range(40)]
        for place in places:
            ask(run.url, Leave(place))  # kept without being renewed
        run.until(lambda: run.ask("ready")[1]["why"] == "40 in flight")
        assert [run.ask(question)[0] for question in ("ready", "live")] == [200, 200]
        waiting = clients.submit(command, "drain", "--grpc-port", str(run.ports.grpc))
        run.until(lambda: run.ask("ready")[0] == 503)
        assert "draining" in run.ask("ready")[1]["why"] and run.ask("live")[0] == 200
        for number in places:
            ask(run.url, End(number))
        assert waiting.result().returncode == 0 and "40 requests are in flight" in waiting.result().stderr
        assert command("resume", "--grpc-port", str(run.ports.grpc)).returncode == 0
        run.until(lambda: run.ask("ready")[0] == 200)
        assert command("health", "start", "live", "--health-port", str(run.ports.health)).returncode == 0

        with FaceCLIPPipeline.from_pretrained(run.url, timeout_s=120) as pipe:
            request = clients.submit(pipe, "a portrait", **SLOW)
            run.until(lambda: ask(run.url, Status())["in_flight"])
            run.process.send_signal(signal.SIGTERM)
            run.until(lambda: run.ask("ready")[0] == 503, timeout_s=5)
            with pytest.raises(ServerUnavailableError):
                pipe("a portrait", num_inference_steps=1)
            assert len(request.result().images) == 2
        assert run.end() == 0
        assert run.said("draining: 1 request is in flight") and run.said("stopped")


def test_a_model_that_dies_ends_the_server_in_seconds_and_nobody_hangs(repository):
    """Also where the server's configuration is closed to those without a key: what is served is read from the folder."""
    closed = "--grpc-restricted-protocol=model-repository,model-config:admin-key=k"
    with running(repository, closed) as run, ThreadPoolExecutor(2) as clients:
        run.until_ready()
        headers = {"triton-grpc-protocol-admin-key": "k"}
        with FaceCLIPPipeline.from_pretrained(run.url, timeout_s=120, headers=headers) as pipe:
            unary = clients.submit(pipe, "a portrait", **LONG)
            stream = pipe.stream("a portrait", **LONG)
            next(stream)
            models = models_of(run)
            os.kill(models["sampler"], signal.SIGKILL)
            killed = time.monotonic()
            with pytest.raises(ServerUnavailableError):
                list(stream)
            with pytest.raises(ServerUnavailableError):
                unary.result()
        assert run.end() == 1
        assert time.monotonic() - killed < 20
        assert "the process of the model 'sampler' has died" in run.lines[-1]
        assert not [pid for pid in models.values() if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]


def test_a_long_step_is_told_and_a_second_signal_stops_at_once(repository):
    with running(repository, "--stall-timeout=1.2") as run, ThreadPoolExecutor(1) as clients:
        run.until_ready()
        with FaceCLIPPipeline.from_pretrained(run.url, timeout_s=120) as pipe:
            request = clients.submit(pipe, "a portrait", **{**SLOW, "num_images_per_prompt": 4, "num_inference_steps": 200})
            run.until(lambda: "has not come round" in run.ask("live")[1]["why"])
            assert run.ask("live")[0] == 503 and run.process.poll() is None
            run.process.send_signal(signal.SIGINT)
            run.until(lambda: run.said("draining: 1 request is in flight"))
            run.process.send_signal(signal.SIGINT)
            assert run.end(15) == 0
            with pytest.raises(ServerUnavailableError):
                request.result()


def test_every_python_model_has_a_process_that_is_known_by_name(server):
    assert sorted(model_processes(server.pid).values()) == [
        "denoiser", "face_encoder", "faceclip_stream", "finish", "prepare", "sampler", "text_encoder", "vae_decoder",
    ]  # fmt: skip


def test_a_server_outlives_the_thread_that_started_it(repository, tmp_path):
    started = []
    thread = threading.Thread(target=lambda: started.append(TritonServer(repository, Ports.free(), log=tmp_path / "log")))
    thread.start()
    thread.join()
    try:
        time.sleep(1)
        assert not started[0].ended
    finally:
        started[0].stop(0)


def test_a_failed_start_ends_with_the_logs_own_reason_and_no_traceback(repository, tmp_path):
    for name in ("faceclip", "finish"):
        subprocess.run(["cp", "-rL", repository / name, tmp_path], check=True)
    with (tmp_path / "finish" / "1" / "faceclip_serving" / "models" / "finish.py").open("a") as file:
        file.write("\n# edited\n")
    with running(tmp_path) as run:
        assert run.end() == 1
    at = next(i for i, line in enumerate(run.lines) if line.startswith("error: tritonserver ended with code"))
    last = "".join(run.lines[at:])
    assert "failed to load 'finish'" in last and "assemble the repository again" in run.lines[-1]
    assert len(run.lines) - at <= 4 and "At:" not in last and "model.py(" not in last
