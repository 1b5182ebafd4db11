"""A wrong setting ends `run` with one line that names it, before anything listens."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sqlite3
import subprocess
import sys

import pytest

from gateway.__main__ import main
from gateway.jobs.kept.whole import FolderLock
from gateway.ports import refuse_port
from gateway.settings import SettingsError, checked
from tests.gateway.running import command

SAID = re.compile(r"error: (\w+): expected [^\n]+, got [^\n]+; [^\n]+\n")
FLAGS = [
    ("port", ["--port=99999"]),
    ("port", ["--port=-1"]),
    ("server", ["--server=http://x"]),
    ("server", ["--server="]),
    ("server", ["--server=grpc://["]),
    ("server", ["--server=localhost:99999"]),
    ("server", ["--server=localhost:8001", "--server=a b"]),
    ("server_header", ["--server-header=foo"]),
    ("server_header", ["--server-header==foo"]),
    ("server_header", ["--server-header=a b=c"]),
    ("server_header", ["--server-header=a=b\nc"]),
    ("server_header", ["--server-header=grpc-timeout=1"]),
    ("server_header", ["--server-header=trace-bin=1"]),
    ("server_header", ["--server-header=a=ä"]),
    ("server_ca", ["--server=grpcs://x", "--server-ca=/nope.pem"]),
    ("server_ca", ["--server=grpcs://x", "--server-ca=README.md"]),
    ("server_ca", ["--server=grpcs://x", "--server-ca=docs"]),
    ("server_metrics", ["--server-metrics=foo"]),
    ("server_metrics", ["--server-metrics=localhost:8002"]),
    ("server_metrics", ["--server-metrics=http://[/metrics"]),
    ("server_metrics", ["--server-metrics=http://a/metrics", "--server-metrics=http://b/metrics"]),
    ("public_url", ["--public-url=pictures.example.org"]),
    ("public_url", ["--public-url=http://["]),
    ("public_url", ["--public-url=http://a:99999"]),
    ("cors_origin", ["--cors-origin=https://a/b"]),
    *[
        ("webhook_host", [f"--webhook-host={host}"])
        for host in (
            "hooks.example.org:8443",
            "https://a.org/hooks",
            "*",
            "*.",
            "a.org/",
            "a b",
            "",
            "ftp://a.org",
            "https://*",
        )
    ],
    ("webhook_network", ["--webhook-network=10.1.2.3/8"]),
    ("timeout", ["--timeout=0"]),
    ("timeout", ["--timeout=nan"]),
    ("jobs_most", ["--jobs-most=-5"]),
    ("data", ["--data=README.md"]),
    ("data", ["--data=README.md/gateway"]),
    ("config", ["--config=/nope.toml"]),
    ("config", ["--config=docs/gateway.md"]),
]
FILES = [
    ("server", "server = [1]"),
    ("server", 'server = "localhost:8001"'),
    ("server", "server = []"),
    ("server_header", 'server-header = ["a=b", []]'),
    ("server_metrics", "server-metrics = [{}]"),
    ("webhook_host", "webhook-host = [true]"),
    ("webhook_network", "webhook-network = [10]"),
    ("cors_origin", "cors-origin = [1.5]"),
    ("server_ca", "server-ca = 1"),
    ("data", "data = []"),
    ("port", 'port = "80"'),
    ("port", "port = true"),
    ("port", "port = 1.5"),
    ("timeout", 'timeout = "long"'),
    ("upload_mib", "upload-mib = 1e10"),
    ("config", "colour = 1"),
]


def _end(capsys, arguments):
    assert main(["run", *arguments]) == 1
    said = capsys.readouterr().err
    found = SAID.fullmatch(said)
    assert found, said
    return found[1]


@pytest.fixture(autouse=True)
def _never_listens(monkeypatch):
    monkeypatch.setattr("uvicorn.Server.run", lambda self: pytest.fail("it would have listened"))


@pytest.mark.parametrize(("name", "flags"), FLAGS, ids=repr)
def test_a_wrong_flag_is_told_in_one_line(tmp_path, capsys, name, flags):
    assert _end(capsys, [f"--data={tmp_path}", *flags]) == name


@pytest.mark.parametrize(("name", "line"), FILES, ids=repr)
def test_a_wrong_line_of_the_file_is_told_in_one_line(tmp_path, capsys, name, line):
    file = tmp_path / "gateway.toml"
    file.write_text(line)
    assert _end(capsys, [f"--config={file}"]) == name


def test_the_folder_of_another_gateway_is_told_in_one_line(tmp_path, capsys):
    held = FolderLock(tmp_path)
    assert _end(capsys, [f"--data={tmp_path}"]) == "data"
    held.close()


def _newer(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize("content", [b"", b"ab" * 31, b"no hexadecimal digits " * 9], ids=["empty", "short", "text"])
@pytest.mark.parametrize("name", ["addresses.key", "webhook.secret"])
def test_a_secret_that_could_be_guessed_is_told_in_one_line(tmp_path, capsys, name, content):
    (tmp_path / name).write_bytes(content)
    assert _end(capsys, [f"--data={tmp_path}"]) == "data"


@pytest.mark.parametrize("name", ["jobs.sqlite", "keys.sqlite"])
def test_a_database_that_is_none_is_told_in_one_line(tmp_path, capsys, name):
    (tmp_path / name).write_bytes(b"nothing of the kind" * 100)
    assert _end(capsys, [f"--data={tmp_path}"]) == "data"


@pytest.mark.parametrize(
    "name", ["waiting", "results", "lock", "addresses.key", "webhook.secret", "jobs.sqlite", "keys.sqlite"]
)
def test_what_stands_in_the_place_of_a_part_of_the_folder_is_told_in_one_line(tmp_path, capsys, name):
    if name in ("waiting", "results"):
        (tmp_path / name).write_text("a file in its place")
    else:
        (tmp_path / name).mkdir()
    assert _end(capsys, [f"--data={tmp_path}"]) == "data"


def test_a_store_of_a_newer_gateway_is_told_in_one_line(tmp_path, capsys):
    _newer(tmp_path / "jobs.sqlite")
    assert _end(capsys, [f"--data={tmp_path}"]) == "data"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_port_that_is_taken_is_told_with_who_has_it(tmp_path, capsys, host):
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as other:
        port = other.getsockname()[1]
        with pytest.raises(SettingsError) as refused:
            refuse_port(host, port)
        assert f"on {host}, got {port}, where process {os.getpid()} (" in str(refused.value) and "--port" in str(refused.value)
        assert _end(capsys, [f"--data={tmp_path}", f"--host={host}", f"--port={port}"]) == "port"
    refuse_port(host, port)
    refuse_port(host, 0)


def test_an_address_of_another_machine_is_told(capsys, tmp_path):
    with pytest.raises(SettingsError, match=r"host: expected an address of this machine, got '192\.0\.2\.1'"):
        refuse_port("192.0.2.1", 8080)


def test_who_has_a_port_is_told_without_what_may_be_secret():
    code = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, "--server-header=authorization=secret"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        with pytest.raises(SettingsError, match=f"process {other.pid} ") as refused:
            refuse_port("127.0.0.1", int(other.stdout.readline()))
        assert "secret" not in str(refused.value)
        other.stdin.close()


def test_as_a_process_there_is_nothing_beside_the_line(tmp_path):
    done = command("run", f"--data={tmp_path}", "--server=http://x")
    assert done.returncode == 1 and SAID.fullmatch(done.stderr), done.stderr


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"port": 0},
        {"port": 65535},
        {"timeout": 5},
        {"server": ("a:1", "grpcs://b", "dns:///c:8001", "[::1]:8001"), "server_metrics": ("http://a:8002/metrics",)},
        {"server_header": ("authorization=Bearer a=b", "X-Empty=")},
        {"public_url": "https://a.example.org/", "cors_origin": ("http://localhost:3000",)},
        {"webhook_network": ("10.1.2.0/24", "::1")},
    ],
    ids=repr,
)
def test_what_is_right_is_taken(chosen):
    settings = checked(chosen)
    assert {name: getattr(settings, name) for name in chosen} == chosen


def test_certificates_are_taken(tmp_path):
    import certifi

    assert checked({"server_ca": certifi.where()}).server_ca
    with pytest.raises(SettingsError, match="server_ca"):
        checked({"server_ca": str(tmp_path)})
