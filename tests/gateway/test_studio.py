"""`make studio`: a server and the gateway before it; a signal ends both, in order."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import fields

import certifi
import httpx
import psutil
import pytest

from examples.studio import main as studio_main
from gateway.__main__ import main as gateway_main
from gateway.settings import Settings
from tests.gateway.running import ROOT, until

ADDRESS = re.compile(r"the gateway answers at (http://\S+)")

PATIENCE_S = 300
"""A busy machine takes its time to import all that a repository is built with."""


def start(*options, **environment):
    command = [sys.executable, "-m", "examples.studio", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "client"), **environment}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
    reader.start()
    return process, lines, reader


@pytest.mark.proof
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_it_draws_and_a_signal_ends_both(repository, tmp_path, number):
    process, lines, reader = start("--port=0", f"--repository={repository}", f"--data={tmp_path}")
    try:
        url = until(lambda: next((found[1] for line in list(lines) if (found := ADDRESS.search(line))), None))
        until(lambda: httpx.get(f"{url}/readyz", trust_env=False).status_code == 200)
        body = {"prompt": "a castle", "num_inference_steps": 1, "height": 64, "width": 64}
        assert httpx.post(f"{url}/v1/images/generations", json=body, trust_env=False, timeout=60).status_code == 200
        assert httpx.get(f"{url}/v1/status", trust_env=False).json()["servers"][0]["work"]["requests_done"] >= 1
        both = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert process.wait(PATIENCE_S) in (0, 130)
        reader.join(10)
        assert not [each for each in both if each.is_running()]
        assert not [line for line in lines if "Traceback" in line]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("told", ["by the flag", "by the file"])
def test_a_port_that_is_taken_is_told_before_anything_starts(tmp_path, told):
    """Also before what builds a repository is imported, which takes seconds."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (tmp_path / "gateway.toml").write_text(f"port = {port}\n")
        option = f"--port={port}" if told == "by the flag" else f"--config={tmp_path}/gateway.toml"
        process, lines, reader = start(option, f"--data={tmp_path}", PYTHONPROFILEIMPORTTIME="1")
        assert process.wait(PATIENCE_S) == 1
        reader.join(10)
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "gateway.settings" in imported and "torch" not in imported
    (line,) = (line for line in lines if not line.startswith("import time:"))
    assert re.match(rf"error: port: expected a free one .*{port}.*process {os.getpid()}.*--port", line)


CHOSEN = {"data": "elsewhere", "host": "::1", "public_url": "https://a.example.org", "cors_origin": ["https://b.example.org"],
          "webhook_host": ["hooks.example.org"], "webhook_network": ["10.1.2.0/24"], "server_ca": certifi.where(),
          "server_header": ["a=b"]}  # fmt: skip
"""Of the settings that are no numbers. What the servers are is the studio's to say."""


def test_every_setting_of_a_file_reaches_the_gateway_and_flags_go_first(tmp_path, monkeypatch):
    chosen = CHOSEN | {each.name: each.default + 1 for each in fields(Settings) if isinstance(each.default, (int, float))}
    assert chosen.keys() == {each.name for each in fields(Settings)} - {"server", "server_metrics"}
    file = tmp_path / "gateway.toml"
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in chosen.items()))
    reached = []
    monkeypatch.setattr("examples.studio.refuse_port", lambda host, port: reached.append((host, port)))
    monkeypatch.setattr("examples.studio.run", lambda repository, options: gateway_main(["run", *options]))
    monkeypatch.setattr("gateway.serve.serve", lambda settings: reached.append(settings) or 0)
    assert studio_main([f"--repository={tmp_path}", f"--config={file}", "--port=9"]) == 0
    where, settings = reached
    assert where == ("::1", 9)
    expected = {name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()} | {"port": 9}
    assert {name: getattr(settings, name) for name in expected} == expected


def test_a_wrong_setting_is_told_before_anything_starts(monkeypatch, capsys):
    monkeypatch.setattr("examples.studio._built", lambda _: pytest.fail("minutes were spent"))
    assert studio_main(["--timeout=0"]) == 1
    assert re.fullmatch(r"error: timeout: expected .*\n", capsys.readouterr().err)


@pytest.mark.proof
def test_where_one_cannot_start_the_other_is_ended(repository, tmp_path):
    process, lines, reader = start("--port=0", f"--repository={repository}", f"--data={tmp_path}", "--host=0.0.0.0")
    try:
        assert process.wait(PATIENCE_S) == 1
        reader.join(10)
        assert any("keys add" in line for line in lines) and any("the gateway has ended" in line for line in lines)
    finally:
        process.kill()
        process.wait()
