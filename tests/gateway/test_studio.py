"""`make studio`: a server and the gateway before it; a signal ends both, in order."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import httpx
import psutil
import pytest

from tests.gateway.running import ROOT, until

ADDRESS = re.compile(r"the gateway answers at (http://\S+)")


def start(*options):
    command = [sys.executable, "-m", "examples.studio", "--port=0", *options]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "client")}, stderr=subprocess.PIPE, text=True
    )
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
    reader.start()
    return process, lines, reader


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_it_draws_and_a_signal_ends_both(repository, tmp_path, number):
    process, lines, reader = start(f"--repository={repository}", f"--data={tmp_path}")
    try:
        url = until(lambda: next((found[1] for line in list(lines) if (found := ADDRESS.search(line))), None))
        until(lambda: httpx.get(f"{url}/readyz", trust_env=False).status_code == 200)
        body = {"prompt": "a castle", "num_inference_steps": 1, "height": 64, "width": 64}
        assert httpx.post(f"{url}/v1/images/generations", json=body, trust_env=False, timeout=60).status_code == 200
        assert httpx.get(f"{url}/v1/status", trust_env=False).json()["servers"][0]["work"]["requests_done"] >= 1
        both = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert process.wait(60) in (0, 130)
        reader.join(10)
        assert not [each for each in both if each.is_running()]
        assert not [line for line in lines if "Traceback" in line]
    finally:
        process.kill()
        process.wait()


def test_a_port_that_is_taken_is_told_before_anything_starts(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process, lines, reader = start(f"--port={port}", "--repository=nowhere", f"--data={tmp_path}")
        assert process.wait(60) == 1
        reader.join(10)
    assert len(lines) == 1 and re.match(rf"error: port: expected a free one .*{port}.*process {os.getpid()}.*--port", lines[0])


def test_where_one_cannot_start_the_other_is_ended(repository, tmp_path):
    process, lines, reader = start(f"--repository={repository}", f"--data={tmp_path}", "--host=0.0.0.0")
    try:
        assert process.wait(60) == 1
        reader.join(10)
        assert any("keys add" in line for line in lines) and any("the gateway has ended" in line for line in lines)
    finally:
        process.kill()
        process.wait()
