"""The server as a process: clean start and stop, drains, busy answers, a model that dies, plain clients."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from faceclip import FaceCLIPPipeline, ServerBusyError, ServerUnavailableError
from faceclip_serving.contract.operations import Drain
from server.control import ask, drain, resume
from server.process import Ports, ServerError, TritonServer

from .callers import places

ROOT = Path(__file__).resolve().parents[2]


def regions(pids):
    """Shared-memory files that these processes have mapped."""
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in pids if Path(f"/proc/{pid}").exists()]
    return {Path(name) for text in maps for name in re.findall(r"/dev/shm/faceclip_\S+", text)}


@pytest.mark.proof
def test_make_serve_stops_cleanly_on_ctrl_c_and_leaves_nothing(repository):
    ports = Ports.free()
    command = [
        sys.executable,
        "-m",
        "server",
        "run",
        str(repository),
        *(f"--{k}-port={getattr(ports, k)}" for k in ("http", "grpc", "metrics", "health")),
    ]
    launcher = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert any(line.startswith("ready after") for line in launcher.stderr)
        children = [child.pid for child in psutil.Process(launcher.pid).children(recursive=True)]
        assert len(children) >= 7  # the server and its Python models
        mapped = regions(children)
        assert mapped
        threading.Thread(target=launcher.stderr.read, daemon=True).start()
        launcher.send_signal(signal.SIGINT)
        assert launcher.wait(timeout=60) == 0
    finally:
        launcher.terminate()  # no effect on one that has ended
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert not [path for path in mapped if path.exists()]
    with (
        pytest.raises(ServerUnavailableError),
        FaceCLIPPipeline.from_pretrained(f"127.0.0.1:{ports.grpc}", timeout_s=2) as pipe,
    ):
        pipe("a portrait")


def test_a_port_that_is_taken_is_named(server, repository):
    with pytest.raises(ServerError, match=f"grpc port {server.ports.grpc}"):
        TritonServer(repository, Ports(Ports.free().http, server.ports.grpc, Ports.free().metrics))


def test_a_model_whose_code_was_changed_after_assembly_refuses_to_load(repository, tmp_path):
    import shutil

    copy = tmp_path / "repository"
    for name in ("faceclip", "finish"):
        shutil.copytree(repository / name, copy / name)
    with (copy / "finish" / "1" / "faceclip_serving" / "models" / "finish.py").open("a") as file:
        file.write("\n# edited\n")
    with pytest.raises(ServerError, match="assemble the repository again") as caught:
        TritonServer(copy, Ports.free(), log=tmp_path / "log").wait_ready(120)
    assert "At:" not in str(caught.value)
    assert not (tmp_path / ".tritonserver").exists(), "nothing is left beside a repository, which may be one itself"


def test_drain_refuses_new_work_finishes_the_old_and_resumes(server, pipe):
    stream = pipe.stream("a portrait", num_inference_steps=40, height=192, width=192)
    next(stream)
    answer = ask(server.connection, Drain())
    try:
        assert answer["in_flight"] == 1
        with pytest.raises(ServerUnavailableError, match="draining"):
            pipe("a portrait", num_inference_steps=1)
        *_, last = stream
        assert last.images
        assert not drain(server.connection, server.interfaces, timeout_s=30)
    finally:
        resume(server.connection, server.interfaces)
    assert pipe("a portrait", num_inference_steps=1).images


def test_above_the_bound_callers_are_refused_at_once_with_a_hint(server, pipe):
    with places(server.connection, 40):
        with pytest.raises(ServerBusyError) as caught:
            pipe("a portrait", num_inference_steps=1)
        assert caught.value.retry_after_s >= 1
    assert pipe("a portrait", num_inference_steps=1).images


def test_many_threads_share_few_arenas_of_memory(server):
    """Else what each thread has freed stays with it, and memory grows with the number of callers."""
    environment = (Path("/proc") / str(server.pid) / "environ").read_text().split("\0")
    assert f"MALLOC_ARENA_MAX={os.environ.get('MALLOC_ARENA_MAX', '2')}" in environment


@pytest.mark.proof
@pytest.mark.skipif("MALLOC_TRIM_THRESHOLD_" in os.environ, reason="the environment says how memory is allocated")
def test_photographs_after_the_first_find_their_memory_where_it_was(server, pipe):
    """Pages that are fetched from the kernel anew for each photograph, thousands of 4 KiB, make a request of 0.3 s 4 % longer."""

    def fetched():
        started = psutil.Process(server.pid)
        stats = [Path(f"/proc/{each.pid}/stat").read_text() for each in (started, *started.children(recursive=True))]
        return sum(int(stat.rpartition(")")[2].split()[7]) for stat in stats)

    photo = (ROOT / "examples" / "portrait.png").read_bytes()
    for _ in range(3):
        pipe("a portrait", face_image=photo, num_inference_steps=1)
    before = fetched()
    for _ in range(10):
        pipe("a portrait", face_image=photo, num_inference_steps=1)
    assert fetched() - before < 10 * 500


def test_the_documented_plain_client_works(server, tmp_path):
    """Any KServe-v2 client can call the server: the example is run as it stands, but for address and folder."""
    page = (ROOT / "docs" / "try.md").read_text()
    [example] = re.findall(r"```python\n(# plain tritonclient\n.*?)```", page, re.DOTALL)
    assert len(example.strip().splitlines()) <= 16
    program = example.replace("localhost:8001", server.url).replace(
        "examples/astronaut.jpg", str(ROOT / "examples/astronaut.jpg")
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": ""})
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_line_client(server, tmp_path):
    out = tmp_path / "out.jpg"
    command = [sys.executable, "-m", "faceclip", "generate", "--server", server.url, "--prompt", "a portrait", "--steps", "2"]
    done = subprocess.run(
        [*command, "--face", str(ROOT / "examples/astronaut.jpg"), "-o", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert out.read_bytes()[:2] == b"\xff\xd8"
    status = subprocess.run(
        [sys.executable, "-m", "faceclip", "status", "--server", server.url], capture_output=True, text=True
    )
    assert status.returncode == 0 and "tiny-sdxl" in status.stdout + status.stderr
