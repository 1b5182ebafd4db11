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
from server.metrics import read_metrics
from server.models import model_processes
from server.process import Ports, TritonServer
from tests.server.image import CLOSED, KEY, assert_statistics_are_closed, entrypoint

ROOT = Path(__file__).resolve().parents[2]
SLOW = {"height": 512, "width": 512, "num_images_per_prompt": 2, "num_inference_steps": 1}
"""Decoding takes longer than denoising, so most of the time nothing is in the sampler."""
IPV6 = Path("/proc/net/if_inet6").exists() and "0" * 31 + "1 " in Path("/proc/net/if_inet6").read_text()
LONG = {"height": 256, "width": 256, "num_inference_steps": 200}


PROXY = {**os.environ, "http_proxy": "http://127.0.0.1:1", "no_proxy": ""}
"""For the addresses of others: who starts and asks a server here goes past it."""


class Running:
    """A `server run` of its own, and what it said."""

    def __init__(self, repository, *options, address="127.0.0.1"):
        self.ports = Ports.free()
        self.host = f"[{address}]" if ":" in address else address
        ports = [f"--{name}-port={getattr(self.ports, name)}" for name in ("http", "grpc", "metrics", "health")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server", "run", str(repository), "--address", address, *ports, *options],
            cwd=ROOT,
            env=PROXY,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = []
        self.url = f"{self.host}:{self.ports.grpc}"
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self._reader.start()

    def ask(self, question):
        """Status and document."""
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.ports.health}/{question}", timeout=5) as response:
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
def running(repository, *options, address="127.0.0.1"):
    started = Running(repository, *options, address=address)
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
    return subprocess.run([sys.executable, "-m", "server", *arguments], cwd=ROOT, env=PROXY, capture_output=True, text=True)


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
    closed = entrypoint("options", FACECLIP_RESTRICTED=CLOSED)
    with running(repository, *closed, address="127.0.0.2") as run, ThreadPoolExecutor(2) as clients:
        run.until_ready()
        headers = {"triton-grpc-protocol-admin-key": KEY}
        for name in ("drain", "resume", "probe"):
            told = command(name, "--url", run.url)
            assert (
                (told.returncode, told.stdout) == (1, "") and "--deployment NAME" in told.stderr and "--header" in told.stderr
            )
        assert run.ask("ready")[0] == 200, "what is not known was not done"
        key = f"--header=triton-grpc-protocol-admin-key={KEY}"
        drained = command("drain", "--url", run.url, "--deployment", "faceclip")
        assert drained.returncode == 0 and "drained: nothing is in flight in faceclip" in drained.stderr
        assert ask(run.url, Status())["draining"]
        assert command("resume", "--url", run.url, key).returncode == 0 and not ask(run.url, Status())["draining"]
        assert json.loads(command("probe", "--url", run.url, key).stdout)["faceclip"]["variant"] == "tiny-sdxl"
        assert_statistics_are_closed(run.url, f"{run.host}:{run.ports.http}")
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
    with (
        running(repository, "--stall-timeout=1.2", address="::1" if IPV6 else "127.0.0.1") as run,
        ThreadPoolExecutor(1) as clients,
    ):
        run.until_ready()
        assert urllib.request.urlopen(f"http://{run.host}:{run.ports.http}/v2/health/live", timeout=5).status == 200
        assert read_metrics(f"{run.host}:{run.ports.metrics}")
        with FaceCLIPPipeline.from_pretrained(run.url, timeout_s=120) as pipe:
            request = clients.submit(
                pipe,
                "a portrait",
                **{**SLOW, "height": 896, "width": 896, "num_images_per_prompt": 4, "num_inference_steps": 200},
            )
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
    at = next(i for i, line in enumerate(run.lines) if line.startswith("error: ") and "creating server" not in line)
    last = "".join(run.lines[at:])
    assert "failed to load 'finish'" in last and "assemble the repository again" in run.lines[-1]
    assert len(run.lines) - at <= 4 and "At:" not in last and "model.py(" not in last
