"""`python -m server run`: its three answers, what it does when a model dies, and how it stops."""

import http.client
import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from faceclip import FaceCLIPPipeline, ServerBusyError, ServerUnavailableError
from faceclip_serving.contract.operations import Status
from server.control import ask
from server.metrics import read_metrics
from server.models import model_processes
from server.process import EXIT_TIMEOUT_S, Ports, TritonServer
from tests.server.image import CLOSED, KEY, assert_statistics_are_closed, entrypoint

from .callers import LONG, Stream
from .running import command, models_of, running

SLOW = {"height": 512, "width": 512, "num_images_per_prompt": 2, "num_inference_steps": 1}
"""Decoding takes longer than denoising, so most of the time nothing is in the sampler."""
IPV6 = Path("/proc/net/if_inet6").exists() and "0" * 31 + "1 " in Path("/proc/net/if_inet6").read_text()


@pytest.mark.proof
def test_full_is_ready_draining_is_not_and_a_stop_waits_for_what_is_in_flight(repository):
    few = ("--set", "max_active=3", "--set", "faceclip.max_waiting=0")
    with running(repository, *few) as run, ThreadPoolExecutor(2) as clients:
        run.until(run.answers)
        assert [run.ask(question)[0] for question in ("start", "ready", "live", "else")] == [503, 503, 200, 404]
        run.until_ready()
        assert [run.ask(question)[0] for question in ("start", "ready", "live")] == [200, 200, 200]

        told = json.loads(command("status", "--grpc-port", str(run.ports.grpc)).stdout)["faceclip"]
        assert (told["in_flight"], told["settings"]["max_active"], told["settings"]["max_waiting"]) == (0, 3, 0)
        callers = [Stream(run.url, **LONG) for _ in range(3)]
        run.until(lambda: run.ask("ready")[1]["why"] == "3 in flight")
        with pytest.raises(ServerBusyError), FaceCLIPPipeline.from_pretrained(run.url) as pipe:
            pipe("a portrait", num_inference_steps=1)
        assert [run.ask(question)[0] for question in ("ready", "live")] == [200, 200]
        waiting = clients.submit(command, "drain", "--grpc-port", str(run.ports.grpc))
        run.until(lambda: run.ask("ready")[0] == 503)
        assert "draining" in run.ask("ready")[1]["why"] and run.ask("live")[0] == 200
        for caller in callers:
            caller.leave()
        assert waiting.result().returncode == 0 and "3 requests are in flight" in waiting.result().stderr
        assert command("resume", "--grpc-port", str(run.ports.grpc)).returncode == 0
        run.until(lambda: run.ask("ready")[0] == 200)
        assert command("health", "start", "live", "--health-port", str(run.ports.health)).returncode == 0

        with FaceCLIPPipeline.from_pretrained(run.url, timeout_s=120) as pipe:
            request = clients.submit(pipe, "a portrait", **SLOW)
            run.until(lambda: ask(run.connection, Status())["in_flight"])
            run.process.send_signal(signal.SIGTERM)
            run.until(lambda: run.ask("ready")[0] == 503, timeout_s=5)
            run.until(lambda: ask(run.connection, Status())["draining"])
            with pytest.raises(ServerUnavailableError):
                pipe("a portrait", num_inference_steps=1)
            assert len(request.result().images) == 2
        assert run.end() == 0
        assert run.said("draining: 1 request is in flight") and run.said("stopped")


@pytest.mark.proof
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
        assert ask(run.connection, Status())["draining"]
        assert command("resume", "--url", run.url, key).returncode == 0 and not ask(run.connection, Status())["draining"]
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


@pytest.mark.proof
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


@pytest.mark.proof
def test_what_a_stop_cuts_hears_that_the_server_stops(repository):
    with running(repository, "--drain-timeout=1") as run, ThreadPoolExecutor(1) as clients:
        run.until_ready()
        with FaceCLIPPipeline.from_pretrained(run.url, timeout_s=120) as pipe:
            unary, stream = clients.submit(pipe, "a portrait", **LONG), pipe.stream("a portrait", **LONG)
            next(stream)
            run.process.send_signal(signal.SIGTERM)
            for answer in (unary.result, lambda: list(stream)):
                with pytest.raises(ServerUnavailableError, match="the server is stopping"):
                    answer()
        assert run.end() == 0 and "the time is up, and this is cut: 2 requests are in flight" in "".join(run.lines)


@pytest.mark.proof
def test_a_stop_takes_work_until_proxies_have_heard_and_no_idle_connection_holds_it_up(repository):
    """As proxies and Prometheus hold them: connections to Triton's HTTP ports that are kept open between calls."""
    with running(repository, "--linger=6") as run, ExitStack() as idle:
        run.until_ready()
        for port, path in ((run.ports.http, "/v2"), (run.ports.metrics, "/metrics")):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            idle.callback(connection.close)
            connection.request("GET", path)
            connection.getresponse().read()
        with FaceCLIPPipeline.from_pretrained(run.url, timeout_s=120) as pipe:
            run.process.send_signal(signal.SIGTERM)
            run.until(lambda: run.ask("ready")[0] == 503)
            assert pipe("a portrait", num_inference_steps=1).images
            with pytest.raises(ServerUnavailableError, match="draining"):
                while True:
                    pipe("a portrait", num_inference_steps=1)
        assert run.end(EXIT_TIMEOUT_S + 14) == 0


@pytest.mark.proof
def test_every_python_model_has_a_process_that_is_known_by_name(server):
    assert sorted(model_processes(server.pid).values()) == [
        "faceclip", "faceclip_cancel", "faceclip_faces", "faceclip_stream", "faceclip_verify", "finish", "prepare", "sampler",
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


@pytest.mark.proof
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
