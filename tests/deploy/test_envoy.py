"""The configuration of Envoy: what is committed for people is what is rendered, and Envoy takes every form of it."""

import base64
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2

from faceclip_serving.face.photos import MAX_BYTES
from server.fleet.envoy.bootstrap import bootstrap
from server.fleet.envoy.grpc_fields import OF_A_MODEL, OF_THE_SERVER, STREAM, descriptors
from server.fleet.envoy.memory import MOST_REQUEST_BYTES
from server.fleet.envoy.proxy import Listener, Proxy, ProxyError, Quota, Server, Tls, Tokens, Upstream

from .envoy import NEEDS_ENVOY, validate
from .tokens import Issuer

ROOT = Path(__file__).resolve().parents[2]
FILES = Path("/etc/faceclip")
EXAMPLE = Proxy(
    servers=[Server(f"gpu{number}.example") for number in (1, 2, 3)],
    listeners=[
        Listener("127.0.0.1", 8081),
        Listener("0.0.0.0", 8443, Tls(FILES / "tls.crt", FILES / "tls.key")),
    ],
    tokens=Tokens("https://issuer.example", "faceclip", str(FILES / "jwks.json")),
    quotas=[Quota(60, 60), Quota(600, 60, "shop")],
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A certificate with its key, and the keys of an issuer."""
    folder = tmp_path_factory.mktemp("envoy")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*made, "-keyout", folder / "tls.key", "-out", folder / "tls.crt"], check=True, capture_output=True)
    (folder / "jwks.json").write_text(Issuer().jwks())
    return folder


def test_the_example_is_what_is_rendered():
    assert yaml.safe_load((ROOT / "deploy/envoy/envoy.yaml").read_text()) == bootstrap(EXAMPLE)


@NEEDS_ENVOY
def test_envoy_takes_the_example(files):
    there = (ROOT / "deploy/envoy/envoy.yaml").read_text().replace(str(FILES), str(files))
    assert validate(yaml.safe_load(there), files) == ""


PAIR = Tls(FILES / "tls.crt", FILES / "tls.key")
FORMS = {
    "open": Proxy([Server("127.0.0.1"), Server("::1", 8011, 8013)]),
    "two deployments": Proxy([Server("localhost")], deployments=["faceclip", "flux"]),
    "faces": replace(EXAMPLE, by_face=True),
    "no quotas": replace(EXAMPLE, quotas=()),
    "one quota": replace(EXAMPLE, quotas=[Quota(1, 0.5)]),
    "quotas at the edges": replace(EXAMPLE, quotas=[Quota(1, 0.05), Quota(2**32 - 1, 1e9, "a"), Quota(10**6, 2592000, "b")]),
    "keys by address": replace(EXAMPLE, tokens=Tokens("https://issuer.example", "a", "https://issuer.example:444/keys", "sub")),
    "TLS to servers": replace(EXAMPLE, upstream=Upstream(FILES / "tls.crt")),
    "mutual TLS": replace(EXAMPLE, upstream=Upstream(FILES / "tls.crt", PAIR)),
    "much memory": replace(EXAMPLE, memory_gib=1024),
    "a socket for the operator": replace(EXAMPLE, admin={"pipe": {"path": "/tmp/admin"}}),
}


@NEEDS_ENVOY
@pytest.mark.parametrize("form", FORMS)
def test_envoy_takes_every_form(form, files):
    there = json.dumps(bootstrap(FORMS[form])).replace(str(FILES), str(files))
    assert validate(json.loads(there), files) == ""


@NEEDS_ENVOY
def test_envoy_finds_a_planted_error(files):
    document = bootstrap(FORMS["open"])
    document["static_resources"]["clusters"][0]["least_busy"] = True
    assert "least_busy" in validate(document, files)
    document = bootstrap(FORMS["open"])
    document["static_resources"]["clusters"][0] |= {"cluster_type": None, "type": "STRICT_DNS", "dns_refresh_rate": "1s"}
    assert "deprecated" in validate(document, files)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"servers": []}, "expected one server"),
        ({"tokens": None}, "expected tokens"),
        ({"quotas": [Quota(1, 1), Quota(2, 1)]}, "one for each tenant"),
        ({"tokens": Tokens("i", "a", "http://issuer.example/keys")}, "https://"),
        ({"tokens": Tokens("i", "a", "keys", "org.tenant")}, "without dots"),
        ({"tokens": Tokens("i", "a", "keys", "")}, "without dots"),
    ],
)
def test_what_makes_no_sound_proxy_is_refused(told, expected):
    with pytest.raises(ProxyError, match=expected):
        replace(EXAMPLE, **told)
    for requests, seconds in ((0, 1), (2**32, 1), (1, 1.1e9), (1, 0.01), (1, float("nan")), (1, float("inf"))):
        with pytest.raises(ProxyError, match="quota"):
            Quota(requests, seconds)


def test_the_fields_are_those_of_tritons_protocol():
    """By Triton's own description, which its client brings."""
    told = descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode(descriptors())).file[0]
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert told.service[0].name == service.name and told.package == service_pb2.DESCRIPTOR.package
    for method in told.service[0].method:
        theirs = service.methods_by_name[method.name]
        assert not (method.client_streaming or method.server_streaming or theirs.client_streaming)
        (field,) = next(each for each in told.message_type if each.name == f"{method.name}Request").field
        same = theirs.input_type.fields_by_name[field.name]
        assert (field.number, field.type) == (same.number, same.type) and field.name == OF_A_MODEL[method.name]
    assert {*OF_A_MODEL, *OF_THE_SERVER, STREAM} <= {*service.methods_by_name}
    assert [each.name for each in service.methods if each.client_streaming] == [STREAM]
    assert service.methods_by_name[STREAM].input_type.fields_by_name["model_name"].number == 1


def test_a_request_of_the_most_that_a_server_reads_passes():
    """Four photographs, a picture to change and its mask, as they are or in base64."""
    assert MOST_REQUEST_BYTES >= 6 * MAX_BYTES * 4 / 3 + MAX_BYTES
