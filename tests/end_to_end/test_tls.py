"""TLS on the gRPC port, by tritonserver's own options: `server run` reaches its own server, and so do the commands beside it."""

import json
import signal
import subprocess

import pytest

from server.direct import AddressError
from server.tls import absolute, own_connection

from .running import command, running

NAME = "faceclip.example"
"""Of the certificate. Nobody reaches the server by it here."""


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """An authority, and certificates that it has signed: the server's, which is for servers alone, and a client's."""
    folder = tmp_path_factory.mktemp("pki")
    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl(folder, *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=our authority")
    for name, host, use in (("server", NAME, "serverAuth"), ("client", "operator", "clientAuth")):
        openssl(
            folder, *new, "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", f"{name}.key", "-out", f"{name}.pem",
            "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}", "-addext", f"extendedKeyUsage={use}",
            "-addext", "basicConstraints=critical,CA:false",
        )  # fmt: skip
    return folder


@pytest.mark.proof
@pytest.mark.parametrize("mutual", [False, True], ids=["TLS", "mutual TLS"])
def test_a_server_behind_tls_is_started_watched_steered_and_drained(repository, pki, mutual):
    options = [f"--grpc-server-cert={pki / 'server.pem'}", "--grpc-server-key", str(pki / "server.key")]
    own = ["--cert", str(pki / "client.pem"), "--key", str(pki / "client.key")] if mutual else []
    if mutual:
        options += ["--grpc-use-ssl-mutual=1", f"--grpc-root-cert={pki / 'ca.pem'}"]
    with running(repository, "--grpc-use-ssl=1", *options, *own) as run:
        run.until_ready()
        run.until(lambda: run.ask("ready")[0] == 200)
        there = ["--url", f"grpcs://{run.url}", "--ca", str(pki / "ca.pem"), "--server-name", NAME, *own]
        assert json.loads(command("probe", *there).stdout)["faceclip"]["variant"] == "tiny-sdxl"
        assert command("drain", *there).returncode == 0
        told = command("status", *there)
        assert json.loads(told.stdout)["faceclip"]["draining"] is True
        run.until(lambda: run.ask("ready")[0] == 503)
        assert command("resume", *there).returncode == 0
        run.until(lambda: run.ask("ready")[0] == 200)
        for wrong in (["--grpc-port", str(run.ports.grpc)], there[:-2] if mutual else there[:4], there[:2] + there[4:]):
            told = command("status", *wrong, "--timeout", "1")
            assert told.returncode == 1 and len(told.stderr.splitlines()) == 1 and told.stderr.startswith("error: "), wrong
        run.process.send_signal(signal.SIGTERM)
        assert run.end() == 0
        assert run.said("draining: waits") and run.said("stopped") and not run.said("does not answer")


def test_the_own_connection_follows_the_options(pki, monkeypatch):
    monkeypatch.chdir(pki)
    files = ["--grpc-server-cert", "server.pem", "--grpc-server-key=server.key"]
    assert absolute(["--x", *files]) == [
        "--x", "--grpc-server-cert", str(pki / "server.pem"), f"--grpc-server-key={pki / 'server.key'}",
    ]  # fmt: skip
    plain = own_connection("127.0.0.1:1", ["--grpc-use-ssl=0", *files], {})
    assert (plain.url, plain.tls) == ("127.0.0.1:1", False)
    tls = own_connection("127.0.0.1:1", ["--grpc-use-ssl", "true", *files], {"a": "b"})
    assert (tls.url, tls.server_name, tls.parameters) == ("grpcs://127.0.0.1:1", NAME, {"a": "b"})
    assert (tls.root_certificates, tls.certificate) == (pki / "server.pem", None)
    mutual = own_connection("127.0.0.1:1", ["--grpc-use-ssl-mutual=1", *files], {})
    assert (mutual.certificate, mutual.key) == (pki / "server.pem", pki / "server.key")
    for options, said in (
        (["--grpc-use-ssl=1"], "--grpc-server-cert: needed where --grpc-use-ssl is on"),
        (["--grpc-use-ssl=1", "--grpc-server-cert=absent", "--grpc-server-key=server.key"], "no such file"),
        (["--grpc-use-ssl=1", "--grpc-server-cert=server.key", "--grpc-server-key=server.key"], "in PEM form"),
    ):
        with pytest.raises(AddressError, match=said):
            own_connection("127.0.0.1:1", options, {})
