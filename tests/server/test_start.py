"""What is said before a server starts, and of one that did not: folders, ports, logs."""

import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from faceclip_serving.contract.errors import UserError
from server import installation
from server.__main__ import main
from server.defaults import Address, Ports
from server.health import HealthPort
from server.log import Log
from server.process import _Workspace
from server.repository import interfaces

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = 'name: "faceclip" backend: "python"' + "".join(
    f' parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
    for key, value in {"interface": "{}", "variant": "tiny-sdxl", "placement": "cpu"}.items()
)


@pytest.fixture
def folder(tmp_path):
    """A repository, as far as it is read before a start."""
    (tmp_path / "faceclip").mkdir()
    (tmp_path / "faceclip" / "config.pbtxt").write_text(PUBLIC)
    return tmp_path


def test_the_public_models_are_read_from_the_folder(folder):
    (folder / "deployments.json").write_text("{}")
    assert interfaces(folder) == {"faceclip": {}}


def refusal(folder, capsys):
    """The one line on stderr."""
    assert main(["run", str(folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: repository: {folder}")
    return line


def test_a_folder_without_models_is_named(tmp_path, capsys):
    assert "does not exist" in refusal(tmp_path / "absent", capsys)
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refusal(tmp_path / "file", capsys)
    (tmp_path / "empty").mkdir()
    assert "holds no models" in refusal(tmp_path / "empty", capsys)


def test_models_of_others_alone_are_named(folder, capsys):
    (folder / "faceclip" / "config.pbtxt").write_text('name: "resnet"')
    assert "no FaceCLIP model, only faceclip" in refusal(folder, capsys)


@pytest.mark.parametrize("stray", ["lost+found", ".cache"])
def test_a_stray_folder_is_named(folder, stray, capsys):
    (folder / stray).mkdir()
    assert f"holds '{stray}', which is no model" in refusal(folder, capsys)


def test_a_port_that_is_taken_is_one_sentence_with_the_cure(folder, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert main(["run", str(folder), f"--health-port={port}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: health port {port} on 127.0.0.1: ") and line.endswith("--health-port")


def test_the_wheels_backend_is_linked_for_each_server_so_it_is_never_old_nor_half_written(tmp_path):
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        found.append(installation.find(tmp_path / name))
    for each in found:
        files = {path.name: path for path in (each.backends / "python").iterdir()}
        assert {"libtriton_python.so", "triton_python_backend_utils.py", "triton_python_backend_stub"} == files.keys()
        assert all(path.is_symlink() and path.exists() for path in files.values())


LOGS = Path(__file__).parent / "logs"
"""Of a real server on a machine without a GPU, with other folders in their place and spaces squeezed."""


def test_of_a_failed_starts_log_the_first_decisive_error_is_kept_without_its_traceback():
    (reason,) = Log((LOGS / "failed.log").read_text().splitlines()).reason().strip().splitlines()
    assert reason.startswith(
        "failed to load 'finish' version 1: Internal: RuntimeError: finish: expected the assembled code in"
    )
    assert reason.endswith("assemble the repository again (python -m export repository)")


def test_a_good_starts_log_holds_no_reason_so_its_last_lines_are_told():
    lines = (LOGS / "started.log").read_text().splitlines()
    assert any("unable to create stream" in line for line in lines)
    assert Log(lines).reason().split("\n  ")[1:] == lines[-10:]


def test_a_log_without_errors_gives_its_last_lines():
    assert Log(f"line {i}" for i in range(100)).reason().splitlines()[-1] == "  line 99"
    assert Log().reason() == ""


def only_line(capsys, *arguments):
    """The one line on stderr of a command that is refused."""
    assert main(list(arguments)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_what_is_no_port_or_no_address_is_one_line(folder, capsys):
    for port in ("0", "65536", "70000"):
        for arguments in (("run", str(folder), "--http-port"), ("drain", "--grpc-port"), ("health", "--health-port")):
            assert f"-port: expected a port from 1 to 65535, got {port}" in only_line(capsys, *arguments, port)
    for address in ("localhost", "fe80::1%eth0", "1.2.3", ""):
        assert "address: expected an IP address such as" in only_line(capsys, "run", str(folder), f"--address={address}")


@pytest.mark.parametrize(
    ("text", "http", "grpc", "reached_at"),
    [
        ("127.0.0.2", "127.0.0.2", "127.0.0.2", "127.0.0.2"),
        ("0.0.0.0", "0.0.0.0", "0.0.0.0", "127.0.0.1"),
        ("::", "ipv6:::", "[::]", "[::1]"),
        ("::1", "ipv6:::1", "[::1]", "[::1]"),
    ],
)
def test_an_address_as_each_listener_wants_it(text, http, grpc, reached_at):
    address = Address(text)
    assert (address.for_http, address.for_grpc, address.reached_at) == (http, grpc, reached_at)


# ------------------------------------------------------------------------------------------------------------------- health
@contextmanager
def answering(answer):
    """Address of somebody else's server, which says the same to everybody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            caller, _ = listener.accept()
            with caller:
                caller.recv(4096)
                caller.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "no: the answer is not ours"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"ok": "true", "why": "x"}', "no: x"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"ok": false, "why": "draining"}', "no: draining"),
        (b'HTTP/1.1 503 No\r\n\r\n{"ok": false, "why": "starting"}', "no: starting"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "no answer"),
        (b"SSH-2.0-OpenSSH\r\n", "no answer"),
    ],
)
def test_only_our_own_yes_is_one(answer, why, capsys):
    with answering(answer) as url:
        assert f"{url}: ready: {why}" in only_line(capsys, "health", "--url", url)


def test_who_cannot_be_asked_says_no_in_one_line(capsys):
    for url in ("localhost:1", "localhost:70000", "local host:1", "localhost:x", "ftp://localhost", "[::1"):
        assert f"error: {url}: ready: no answer" in only_line(capsys, "health", "--url", url)
    assert "question: expected one of start, ready, live, got 'redy'" in only_line(capsys, "health", "redy")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_caller_who_resets_the_health_port_is_not_worth_a_line(address, capsys):
    port = Ports.free().health
    try:
        health = HealthPort(Address(address), port, None)
    except OSError as error:
        pytest.skip(f"{address}: {error}")
    with health:
        for _ in range(3):
            with socket.create_connection((address, port)) as caller:
                caller.sendall(b"GET /")
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with socket.create_connection((address, port)) as caller:
            caller.sendall(b"GET /else HTTP/1.0\r\n\r\n")
            assert b" 404 " in caller.recv(100)
        while [each for each in threading.enumerate() if "process_request" in each.name]:
            time.sleep(0.01)
    assert capsys.readouterr().err == ""


# ----------------------------------------------------------------------------------------------------------- a start cut short
def test_a_stop_while_the_command_is_still_importing_leaves_no_traceback(folder):
    command = [
        sys.executable,
        "-m",
        "server",
        "run",
        str(folder),
        *(f"--{k}-port={v}" for k, v in asdict(Ports.free()).items()),
    ]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while "numpy" not in Path(f"/proc/{run.pid}/maps").read_text():
        time.sleep(0.005)
    run.terminate()
    said = run.communicate(timeout=60)[1]
    assert (run.returncode, said) == (0, "stopped\n")


def test_the_folder_of_a_launcher_that_was_killed_goes_at_the_next_start(tmp_path, monkeypatch):
    code = "import time; from server.process import _Workspace; x = _Workspace(); print(x.path, flush=True); time.sleep(60)"
    killed = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True
    )
    left = Path(killed.stdout.readline().strip())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "faceclip-other").mkdir()
    first = _Workspace()
    assert left.exists() and first.path.exists(), "one whose launcher lives stays"
    killed.kill()
    killed.communicate()
    second = _Workspace()
    assert not left.exists() and first.path.exists() and (tmp_path / "faceclip-other").exists()
    for each in (first, second):
        each.close()
    assert [path.name for path in tmp_path.iterdir()] == ["faceclip-other"]


@pytest.mark.parametrize("variables", [["PLACEMENT=cpu"], ["PLACEMENT=cpu", "EMULATE=1"], ["PLACEMENT=8gb", "EMULATE=1"]])
def test_make_serves_the_folder_that_it_has_assembled(variables):
    said = subprocess.run(["make", "-n", "serve", *variables], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (made,) = re.findall(r"-m export repository .*--output (\S+)", said)
    assert re.findall(r"-m server run (\S+)", said) == [made]


def test_errors_of_a_folder_are_errors_that_a_user_can_mend(tmp_path):
    with pytest.raises(UserError):
        interfaces(tmp_path)
