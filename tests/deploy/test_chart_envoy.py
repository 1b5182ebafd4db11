"""The chart's Envoy is the measured one: the value that server/fleet/envoy renders, for every form of it that the chart has."""

import socket
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from server.fleet.envoy.bootstrap import bootstrap
from server.fleet.envoy.proxy import Listener, Proxy, Quota, Server, Tls, Tokens, socket_address

from .chart import NAMESPACE, RELEASE, SETS, envoy, of_kind, one, pods, refusal
from .envoy import ENVOY, NEEDS_ENVOY, validate, written
from .test_envoy import files
from .tokens import Issuer

__all__ = ["files"]  # a fixture

SERVERS = [Server(f"{RELEASE}-server.{NAMESPACE}.svc.cluster.local")]
PLAIN = Proxy(SERVERS, [Listener("0.0.0.0", 8081)])
KEYS = Issuer().jwks()
TLS = [Listener("0.0.0.0", 8443, Tls(Path("/etc/faceclip/tls.crt"), Path("/etc/faceclip/tls.key")))]
FORMS = {
    "open": ("nano-cpu", "envoy", (), PLAIN),
    "tokens, quotas and TLS": (
        "sdxl-datacenter",
        "envoy",
        (),
        Proxy(
            SERVERS,
            TLS,
            tokens=Tokens("https://issuer.example", "faceclip", "https://issuer.example/.well-known/jwks.json"),
            quotas=[Quota(60, 60), Quota(600, 60, "shop")],
        ),
    ),
    "an issuer at a port": (
        "nano-cpu",
        "envoy",
        ("--set=envoy.tokens.issuer=me,envoy.tokens.jwks=https://keys.example:444/set",),
        Proxy(SERVERS, PLAIN.listeners, tokens=Tokens("me", "faceclip", "https://keys.example:444/set")),
    ),
    "keys in the values": (
        "nano-cpu",
        "envoy",
        (
            "--set=envoy.tokens.issuer=me,envoy.tokens.audience=a,envoy.tokens.tenantClaim=sub",
            f"--set-literal=envoy.tokens.jwks={KEYS}",
        ),
        Proxy(SERVERS, PLAIN.listeners, tokens=Tokens("me", "a", "/etc/envoy/jwks.json", "sub")),
    ),
    "quotas at the edges": (
        "sdxl-datacenter",
        "envoy",
        (
            "--set-json=envoy.quotas=["
            '{"requests":1,"seconds":0.05},{"requests":4294967295,"seconds":1000000000,"tenant":"a"},'
            '{"requests":1000000,"seconds":2592000,"tenant":"b"}]',
        ),
        Proxy(
            SERVERS,
            TLS,
            tokens=Tokens("https://issuer.example", "faceclip", "https://issuer.example/.well-known/jwks.json"),
            quotas=[Quota(1, 0.05), Quota(2**32 - 1, 1e9, "a"), Quota(10**6, 2592000, "b")],
        ),
    ),
    "faces": ("flux-16gb", "envoy", (), Proxy(SERVERS, PLAIN.listeners, by_face=True)),
    "a cluster of another domain": (
        "nano-cpu",
        "envoy",
        ("--set=clusterDomain=corp.example",),
        Proxy([Server(f"{RELEASE}-server.{NAMESPACE}.svc.corp.example")], PLAIN.listeners),
    ),
    "much memory": ("nano-cpu", "envoy", ("--set=envoy.memoryGi=64",), Proxy(SERVERS, PLAIN.listeners, memory_gib=64)),
    "the gateway's own": ("gateway", "gateway", (), Proxy(SERVERS, [Listener("127.0.0.1", 8081)], memory_gib=1)),
    "the gateway's own, while others show tokens": (
        "sdxl-datacenter",
        "gateway",
        ("--set=gateway.enabled=true,gateway.memoryGi=2",),
        Proxy(SERVERS, [Listener("127.0.0.1", 8081)], memory_gib=2),
    ),
}
EVERY_FORM = pytest.mark.parametrize("form", FORMS)


@EVERY_FORM
def test_it_is_what_is_rendered(form):
    values, name, options, proxy = FORMS[form]
    assert envoy(values, name, *options) == bootstrap(proxy)


@NEEDS_ENVOY
@EVERY_FORM
def test_envoy_takes_it(form, files):
    values, name, options, _ = FORMS[form]
    text = one(values, "ConfigMap", name, *options)["data"]["envoy.yaml"]
    for folder in ("/etc/faceclip", "/etc/envoy"):
        text = text.replace(folder, str(files))
    assert validate(yaml.safe_load(text), files) == ""


def test_every_set_is_among_them():
    assert {values for values, *_ in FORMS.values()} | {"s3-keda-monitoring"} == set(SETS)
    assert envoy("s3-keda-monitoring") == bootstrap(PLAIN)


@pytest.mark.parametrize("values", SETS)
def test_its_files_are_mounted_and_its_port_is_reached(values):
    (listener,) = envoy(values)["static_resources"]["listeners"]
    (container,) = pods(values)["envoy"]["containers"]
    mounts = {each["mountPath"] for each in container["volumeMounts"]}
    assert "/etc/envoy" in mounts and ("transport_socket" in listener["filter_chains"][0]) == ("/etc/faceclip" in mounts)
    port = listener["address"]["socket_address"]["port_value"]
    assert [each["containerPort"] for each in container["ports"]] == [port]
    assert [each["port"] for each in one(values, "Service", "envoy")["spec"]["ports"]] == [port]


def test_keys_in_the_values_lie_where_envoy_reads_them():
    values, name, options, _ = FORMS["keys in the values"]
    assert one(values, "ConfigMap", name, *options)["data"]["jwks.json"] == KEYS
    assert "jwks.json" not in one("sdxl-datacenter", "ConfigMap", "envoy")["data"]


def test_quotas_need_tokens_which_need_keys_and_a_claim_without_dots():
    assert "envoy.quotas: expected envoy.tokens" in refusal("sdxl-datacenter", "--set=envoy.tokens.issuer=")
    assert "jwks" in refusal("sdxl-datacenter", "--set=envoy.tokens.jwks=")
    for claim in ("", "org.tenant"):
        assert "tenantClaim" in refusal(
            "sdxl-datacenter", f"--set-string=envoy.tokens.tenantClaim={claim.replace('.', chr(92) + '.')}"
        )


def test_namespaces_that_may_call():
    policies = {
        each["metadata"]["name"]: each for each in of_kind("nano-cpu", "NetworkPolicy", "--set=envoy.callers={shop,web}")
    }
    (rule,) = policies[f"{RELEASE}-envoy"]["spec"]["ingress"]
    assert [each["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for each in rule["from"]] == ["shop", "web"]
    assert len(of_kind("nano-cpu", "NetworkPolicy")) == 2


@NEEDS_ENVOY
def test_a_stop_lets_what_runs_end_and_sends_others_away(tmp_path):
    """The hook before its stop, carried out against a real Envoy, with a second in place of a minute: who comes late is still served, then
    nobody is let in; what runs has that long."""
    (container,) = pods("nano-cpu")["envoy"]["containers"]
    *shell, script = container["lifecycle"]["preStop"]["exec"]["command"]
    told, _, waits = script.rstrip().rpartition("\n")
    pod = pods("nano-cpu")["envoy"]
    assert waits.startswith("sleep ") and int(waits.split()[1]) < pod["terminationGracePeriodSeconds"]
    admin, port = (free_port() for _ in range(2))
    proxy = Proxy([Server("127.0.0.1", 9, 9)], [Listener("127.0.0.1", port)], admin=socket_address("127.0.0.1", admin))
    configuration = written(proxy, tmp_path)
    arguments = [each.replace("/etc/envoy/envoy.yaml", str(configuration)) for each in container["args"]]
    drain = arguments.index("--drain-time-s") + 1
    assert int(waits.split()[1]) > int(arguments[drain])
    arguments[drain] = "1"
    with subprocess.Popen([ENVOY, *arguments, "--use-dynamic-base-id", "-l", "error"]) as running:
        try:
            wait_until(lambda: connects(admin) and connects(port))
            said = subprocess.run(
                [*shell, told.replace("9901", str(admin))], capture_output=True, text=True, timeout=20, check=True
            )
            assert said.stdout.startswith("HTTP/1.1 200") and connects(port)
            wait_until(lambda: not connects(port))
            assert connects(admin)
        finally:
            running.kill()


def free_port():
    with socket.socket() as test:
        test.bind(("127.0.0.1", 0))
        return test.getsockname()[1]


def connects(port):
    with socket.socket() as test:
        return test.connect_ex(("127.0.0.1", port)) == 0


def wait_until(is_so):
    for _ in range(300):
        if is_so():
            return
        time.sleep(0.1)
    raise AssertionError("never so")
