from __future__ import annotations

import pytest

from faceclip import InvalidRequestError
from faceclip.address import split_target


@pytest.mark.parametrize(
    ("written", "target", "tls"),
    [
        ("localhost:8001", "localhost:8001", False),
        ("grpc://gpu-box:9000", "gpu-box:9000", False),
        ("grpc://gpu-box", "gpu-box:8001", False),
        ("grpcs://faces.example", "faces.example:443", True),
        ("grpcs://faces.example:8443/", "faces.example:8443", True),
        ("10.0.0.7", "10.0.0.7:8001", False),
        ("grpc://[::1]:8001", "[::1]:8001", False),
        ("localhost", "localhost:8001", False),
        ("dns:///faces:9000", "dns:///faces:9000", False),
        ("dns:///faces", "dns:///faces:8001", False),
        ("dns:///grpcs://faces", "dns:///faces:443", True),
    ],
)
def test_an_address_is_read_with_its_port_and_tls(written: str, target: str, tls: bool) -> None:
    assert split_target(written) == (((target, tls),), None)


def test_a_word_is_a_variant_at_the_usual_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert split_target("tiny-sdxl") == ((("localhost:8001", False),), "tiny-sdxl")
    monkeypatch.setenv("FACECLIP_URL", "grpcs://faces.example")
    assert split_target("tiny-sdxl") == ((("faces.example:443", True),), "tiny-sdxl")
    assert split_target(None) == ((("faces.example:443", True),), None)
    assert split_target("localhost:1") == ((("localhost:1", False),), None)
    monkeypatch.setenv("FACECLIP_URL", "a:1,b:2")
    assert split_target("tiny-sdxl") == ((("a:1", False), ("b:2", False)), "tiny-sdxl")


@pytest.mark.parametrize(
    "written", ["a:1, grpc://b,dns:///c:3,a:1", ["a:1", "grpc://b", "dns:///c:3"], ("a:1", "b", "dns:///c:3")]
)
def test_several_addresses_are_a_list_or_have_commas_between_them(written: str | list[str]) -> None:
    assert split_target(written) == ((("a:1", False), ("b:8001", False), ("dns:///c:3", False)), None)


@pytest.mark.parametrize(
    ("written", "says"),
    [("a:1,", "host:port"), ([], "one at least"), (["a:1", "grpcs://b"], "all with TLS or all without"), ([""], "host:port")],
)
def test_several_addresses_that_are_none_are_refused(written: str | list[str], says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        split_target(written)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("http://localhost:8000", "gRPC, not http"),
        ("localhost:port", "host:port"),
        ("grpc://:8001", "expected a host"),
        ("grpc://host:8001/v2/models", "a host and a port only"),
        ("grpc://user:secret@host", "a host and a port only"),
        ("", "host:port"),
        ("my box", "a host and a port only"),
        ("dns:///", "a host and a port only"),
    ],
)
def test_what_is_no_address_is_refused_with_the_cure(written: str, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        split_target(written)


@pytest.mark.parametrize(
    ("written", "no_proxy", "through"),
    [
        ("gpu-box:8001", "", "http_proxy=http://proxy:3128"),
        ("gpu-box:8001", "gpu-box", None),
        ("localhost:8001", "", None),
        ("127.0.0.1:8001", "", None),
        ("[::1]:8001", "", None),
        ("dns:///faces:8001", ".example,faces", None),
    ],
)
def test_the_proxy_of_the_environment_is_known(
    monkeypatch: pytest.MonkeyPatch, written: str, no_proxy: str, through: str | None
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    ((address,), _) = split_target(written)
    assert address.proxy == through
