"""deploy/gateway.Dockerfile carried out: its files, its requirements and nothing else, its user. See tests/server/image.py."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time

import httpx
import pytest
import yaml

from tests.gateway.running import ENVIRONMENT, ROOT
from tests.server.image import DEPLOY, Image, closure

FILE = "gateway.Dockerfile"


@pytest.fixture(scope="module")
def image():
    made = Image(FILE, wheels=())
    yield made
    made.remove()


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_nothing_but_its_requirements_is_there(image):
    code = "import importlib.metadata as m, json; print(json.dumps(sorted({d.name.lower().replace('_', '-') for d in m.distributions()})))"
    found = set(json.loads(image.run("python3", "-c", code).stdout))
    assert found == {*closure(image.workdir / "gateway" / "requirements.txt")}
    assert not found & {"torch", "onnx", "onnxruntime", "diffusers", "opencv-python-headless", "openai", "playwright"}


def test_every_module_can_be_imported_there(image):
    code = (
        "import pkgutil, gateway, importlib\n"
        "for each in pkgutil.walk_packages(gateway.__path__, 'gateway.'):\n"
        "    if not each.name.endswith('__main__'): importlib.import_module(each.name)"
    )
    done = image.run("python3", "-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.proof
def test_without_a_key_it_does_not_start_and_with_one_it_draws_and_stops(image, server):
    refused = image.run(*image.entrypoint, *image.default, "--port=0")
    assert refused.returncode == 1 and "keys add" in refused.stderr
    key = image.run(*image.entrypoint, "keys", "add", "somebody", "--data=data").stdout.strip()
    running = image.start(*image.entrypoint, *image.default, "--port=0", f"--server={server.url}", stderr=subprocess.PIPE)
    try:
        line = next(line for line in running.stderr if "answers at" in line)
        url = f"http://127.0.0.1:{line.split(' (')[0].rpartition(':')[2]}"
        assert image.run(*image.healthcheck, "--url", url).returncode == 0
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=60) as http:
            assert http.get("/").status_code == 200
            body = {"prompt": "一座城堡", "num_inference_steps": 1, "height": 64, "width": 64}
            answer = http.post("/v1/images/generations", json=body).json()
            assert answer["data"][0]["b64_json"] and answer["data"][0]["revised_prompt"].isascii()
        running.send_signal(image.stop_signal)
        assert running.wait(60) == 0, "a stop that was asked for is no failure"
    finally:
        running.kill()
        running.wait()
    assert not list((image.workdir / "gateway").glob("**/__pycache__"))


def test_unanswered_health_is_unhealthy(image):
    began = time.monotonic()
    done = image.run(*image.healthcheck, "--url", "http://127.0.0.1:1")
    assert done.returncode == 1 and "Traceback" not in done.stderr and time.monotonic() - began < 30


def test_compose_closes_what_it_need_not_have(image, compose):
    service = compose["services"]["gateway"]
    assert service["ports"] == ["127.0.0.1:8080:8080"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and "deploy" not in service
    name, place = service["volumes"][0].split(":")
    assert name in compose["volumes"] and place == "/opt/gateway/data"
    assert service["healthcheck"]["test"] == ["CMD", *image.healthcheck]


def test_the_command_of_compose_is_one(image, compose):
    """Its flags are known: it goes on to ask for a key."""
    command = [word.replace("${PUBLIC_URL:-}", "") for word in compose["services"]["gateway"]["command"]]
    done = image.run(*image.entrypoint, *[word if word != "--data=data" else "--data=/tmp/empty" for word in command])
    assert done.returncode == 1 and "there is no API key" in done.stderr
    assert image.stop_signal == signal.SIGTERM


def test_the_unit_starts_what_exists():
    from gateway.__main__ import main

    lines = dict(line.split("=", 1) for line in (DEPLOY / "faceclip-gateway.service").read_text().splitlines() if "=" in line)
    words = lines["ExecStart"].split()
    assert words[1:4] == ["-m", "gateway", "run"]
    with pytest.raises(SystemExit) as ended:
        main([*words[3:], "--help"])
    assert ended.value.code == 0


def test_the_steps_before_the_unit_make_its_folder_and_a_key(tmp_path):
    """They are carried out in their order, with this user and a folder below `tmp_path`; systemd's and the user's making are not."""
    text = (DEPLOY / "faceclip-gateway.service").read_text()
    user, workdir = (re.search(rf"^{name}=(\S+)$", text, re.MULTILINE)[1] for name in ("User", "WorkingDirectory"))
    data = f"/var/lib/{re.search(r'^StateDirectory=(.+)$', text, re.MULTILINE)[1]}"
    steps = [line.removeprefix("#").split() for line in text.splitlines() if line.startswith("#   ")]
    assert [step[0] for step in steps] == ["useradd", "install", "cd", "sudo", "systemctl"]
    assert steps[0][-1] == user and steps[2][1] == workdir and steps[3][:3] == ["sudo", "-u", user]
    here = str(tmp_path / "state")
    makes = [{user: str(os.getuid()), data: here}.get(word, word) for word in steps[1]]
    adds = [{".venv/bin/python": sys.executable, data: here}.get(word, word) for word in steps[3][3:]]
    subprocess.run(makes, check=True)
    assert stat.S_IMODE(os.stat(here).st_mode) == 0o700 and os.stat(here).st_uid == os.getuid()
    done = subprocess.run(adds, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("fc_"), done.stderr
    assert f"--data {data}" in text.partition("ExecStart=")[2]
