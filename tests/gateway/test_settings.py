"""A wrong setting ends `run` with one line that names it, before anything listens."""

from __future__ import annotations

import re

import pytest

from gateway.__main__ import main
from gateway.jobs.whole import FolderLock
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
