"""The container, executed: see `image.py` for what stands in for a container engine and for NVIDIA's image.

Not reached without a GPU: engines. A placement without plans goes the same way from `build/` to a picture.
"""

import base64
import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from PIL import Image as Picture

from export.onnx.wanted import emulated
from export.paths import onnx_folder
from export.repository.from_nothing import build_repository
from faceclip_serving.contract.placements import placement_of
from faceclip_serving.contract.variants.table import VARIANTS
from server.process import Ports

from .image import ROOT, SERVER_WHEEL, Image, closure, interpreter

pytestmark = pytest.mark.server
SERVED = {"tiny-sdxl": "8gb", "tiny-flux": "16gb"}
"""Variant -> the placement that is emulated."""
PORTRAIT = ROOT / "examples" / "portrait.png"


@pytest.fixture(scope="module")
def image(monkeypatch_session):
    """The image, with the exported components of what is served as its volume `build/`."""
    monkeypatch_session.chdir(ROOT)
    made = Image()
    for name in SERVED:
        variant = VARIANTS[name]
        build_repository(
            variant, emulated(variant, placement_of(variant, SERVED[name]), onnx_folder(variant))
        )  # what is missing
        made.mount(onnx_folder(variant), f"{made.workdir.relative_to(made.root)}/{onnx_folder(variant)}")
    if made.identity:
        os.chown(made.workdir / "build" / "onnx", *made.user)
    yield made
    made.remove()


def test_nothing_but_the_image_is_imported(image):
    """Its distributions are those of its requirements, and its Python knows no other folder."""
    code = (
        "import importlib.metadata as m, json, sys; "
        "print(json.dumps([sys.path, sorted({d.name.lower().replace('_', '-') for d in m.distributions()})]))"
    )
    paths, distributions = json.loads(image.run("python3", "-c", code).stdout)
    requirements = image.workdir / "deploy" / "requirements.txt"
    assert image.python == interpreter(requirements)
    assert set(distributions) == {*closure(requirements), SERVER_WHEEL} and "onnxscript" not in distributions
    assert "PYTHONPATH" not in image.environment
    assert all(path == "" or Path(path).is_relative_to(image.python) for path in paths), paths
    if image.identity:
        assert image.run("id", "-u").stdout.strip() == str(image.user[0]) != "0"
        assert image.run("sh", "-c", "touch export/x").returncode != 0, "the image's own files are not its user's"


@pytest.mark.parametrize("command", ["engine", "verify", "inspect", "repository"])
def test_each_step_of_the_build_starts(image, command):
    answer = image.run("python3", "-m", "export", command, "--help")
    assert answer.returncode == 0 and "--placement" in answer.stdout, answer.stderr


def test_without_tensorrt_one_line_says_so(image):
    """The steps of the script are those of a real build; the first one ends it."""
    answer = image.run("sh", "deploy/build.sh", "tiny-sdxl", SERVED["tiny-sdxl"])
    assert answer.returncode == 1 and answer.stdout == ""
    (line,) = answer.stderr.splitlines()
    assert line.startswith("error: the Python package 'tensorrt' is not installed")
    answer = image.run("python3", "deploy/tensorrt_version.py")
    (line,) = answer.stderr.splitlines()
    assert answer.returncode == 1 and line.startswith("error: no TensorRT library")


@pytest.fixture(scope="module", params=SERVED)
def repository(request, image):
    """Assembled in the image by its own script, from `build/` alone, and mounted where the container serves from."""
    answer = image.run("sh", "deploy/build.sh", request.param, SERVED[request.param], "--emulate", ENGINES="no")
    assert answer.returncode == 0, answer.stderr
    made = image.workdir / json.loads(answer.stdout.splitlines()[-1])["repository"]
    place = Path(image.environment["FACECLIP_REPOSITORY"])
    place.unlink(missing_ok=True)
    place.symlink_to(made)
    return request.param, place


@pytest.mark.proof
def test_the_plans_of_a_repository_are_checked_in_the_image(image, repository):
    answer = image.run("python3", "-m", "export", "inspect", "--repository", str(repository[1]))
    assert (answer.returncode, json.loads(answer.stdout)["plans"]) == (0, []), answer.stderr


@pytest.mark.proof
def test_it_starts_is_healthy_draws_drains_and_stops(image, repository, tmp_path):
    variant, _ = repository
    ports = Ports.free()
    options = [f"--{name}-port={port}" for name, port in dataclasses.asdict(ports).items()]
    log = tmp_path / "container.log"
    with log.open("w") as output:
        server = image.start(*image.entrypoint, *image.default, *options, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_healthy(image, ports, server, log)
        assert_nothing_foreign_is_mapped(server, image)
        details = draw(ports, variant)
        assert (details["variant"], details["placement"]) == (variant, SERVED[variant])
        assert details["emulated"]["denoiser"].endswith("on tensorrt")
        assert details["marks"]["off"] == ["visible_label"]
        assert (image.workdir / "state" / "marks" / "certificate.key").exists(), "own keys are where a volume keeps them"
        started = processes(server.pid)
        assert len(started) > 7  # the server and its Python models
        drained = image.run("python3", "-m", "server", "drain", "--url", f"localhost:{ports.grpc}")
        assert drained.returncode == 0, drained.stderr
        with pytest.raises(urllib.error.HTTPError) as refused:
            draw(ports, variant)
        assert "draining" in refused.value.read().decode()
        server.send_signal(image.stop_signal)
        assert server.wait(90) == 0, log.read_text()[-3000:]
        assert not [process for process in started if process.is_running()], "processes of the container are left"
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in processes(server.pid):
                process.kill()
        server.wait()


def wait_healthy(image, ports, server, log):
    """Asks as a container engine does: the Dockerfile's own command, at the ports that were free."""
    port = ports.grpc if "health" not in image.healthcheck else ports.health
    deadline = time.monotonic() + 240
    while True:
        answer = image.run(*image.healthcheck, "--url", f"localhost:{port}")
        if answer.returncode == 0:
            return
        assert server.poll() is None, f"ended with {server.returncode}: {log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"{answer.stderr}\n{log.read_text()[-3000:]}"
        time.sleep(1)


def draw(ports, variant):
    """A picture of a face, over HTTP; returns its `details`."""
    request = {
        "prompt": "A woman in a library.",
        "face_images": base64.b64encode(PORTRAIT.read_bytes()).decode(),
        "face_aligned": True,
        "num_inference_steps": 2,
        "image_encoding": "base64",
    }
    url = f"http://127.0.0.1:{ports.http}/v2/models/faceclip/generate"
    with urllib.request.urlopen(url, json.dumps(request).encode(), timeout=120) as answer:
        found = json.load(answer)
    picture = Picture.open(io.BytesIO(base64.b64decode(found["images"])))
    assert picture.size == (VARIANTS[variant].defaults.width, VARIANTS[variant].defaults.height)
    return json.loads(found["details"])


def processes(pid):
    """A process and all that it started, as psutil knows them."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def assert_nothing_foreign_is_mapped(server, image):
    """No library of any process comes from the environment that the tests run in, or from this checkout."""
    allowed, foreign = str(image.python), [str(ROOT), sys.prefix, sys.base_prefix]
    maps = [Path(f"/proc/{process.pid}/maps").read_text() for process in processes(server.pid)]
    libraries = {line.split(maxsplit=5)[5] for text in maps for line in text.splitlines() if ".so" in line and "/" in line}
    assert any("onnxruntime" in path for path in libraries) and any("numpy" in path for path in libraries)
    outside = [path for path in libraries if path.startswith(tuple(foreign)) and not path.startswith(allowed)]
    assert not outside or sys.base_prefix == "/usr", outside
